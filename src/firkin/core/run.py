"""`run`: a command in a new container to its end, with what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

from firkin.core.capture import CAPTURE_LIMIT, Captured
from firkin.core.exit import CompletedProcess
from firkin.core.option_inputs import OptionInputs
from firkin.errors import FirkinTimeoutError
from firkin.types import Stdio

if TYPE_CHECKING:
    from firkin.core.process import AsyncProcess
    from firkin.types import StateDirs

__all__ = ["finish", "run_async"]


async def run_async(
    image: str,
    command: Sequence[str] = (),
    *,
    input: bytes | str | None = None,
    text: bool = False,
    check: bool = False,
    timeout: float | None = None,
    capture_limit: int = CAPTURE_LIMIT,
    name: str | None = None,
    dirs: StateDirs | None = None,
    **options: Unpack[OptionInputs],
) -> CompletedProcess:
    """Run `command` of `image` in a new VM to its end, capture what it writes, and remove the container.

    `input` becomes its standard input (else empty). At most `capture_limit` bytes of each of stdout and stderr are
    kept; the result says if
    there was more. `text` decodes both as UTF-8. `timeout` in seconds counts from the start of the process. Options
    are those of
    `ContainerOptions`. Raises what `AsyncContainer.launch` does, `FirkinTimeoutError`, and with `check`
    `ProcessFailedError`.
    """
    from firkin.core.container import AsyncContainer

    options.setdefault("stdin", Stdio.NULL if input is None else Stdio.PIPED)
    options.setdefault("stdout", Stdio.PIPED)
    options.setdefault("stderr", Stdio.PIPED)
    launched = await AsyncContainer.launch(image, command, name=name, dirs=dirs, **options)
    async with launched as container:
        return await finish(
            container.process,
            container.spec.process.args,
            input=input,
            text=text,
            check=check,
            timeout=timeout,
            limit=capture_limit,
        )


async def finish(
    process: AsyncProcess,
    args: Sequence[str],
    *,
    input: bytes | str | None,
    text: bool,
    check: bool,
    timeout: float | None,
    limit: int,
) -> CompletedProcess:
    """Feed `input`, capture, and wait; at `timeout` kill the process and raise `FirkinTimeoutError`."""
    data = input.encode() if isinstance(input, str) else input
    try:
        out, err, status = await process.communicate(data, limit=limit, timeout=timeout)
    except TimeoutError as error:
        await process.kill()
        raise FirkinTimeoutError(
            f"{args[0] if args else 'the command'} still ran after {timeout:g} s and was killed"
        ) from error
    result = CompletedProcess(
        tuple(args), status, _value(out, text), _value(err, text), truncated=out.truncated or err.truncated
    )
    if check:
        result.check_returncode()
    return result


def _value(captured: Captured, text: bool) -> bytes | str:
    return captured.data.decode(errors="replace") if text else captured.data
