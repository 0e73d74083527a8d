"""The sync face of the warm pool and of warm images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from firkin.core.blocking import Container
from firkin.core.engine import engine
from firkin.core.ledger import Host, Reserves
from firkin.core.option_inputs import OptionInputs

if TYPE_CHECKING:
    from firkin.core.warm import WarmInfo
    from firkin.oci.registry.progress import Progress
    from firkin.types import StateDirs

__all__ = ["WarmPool", "warm_image"]


class WarmPool:
    """As `AsyncWarmPool`. A context manager.

    >>> with firkin.WarmPool("busybox", size=1) as pool, pool.lease(["sleep", "60"]) as box:
    ...     box.run(["echo", "hi"], text=True).stdout
    'hi\\n'
    """

    def __init__(
        self,
        image: str = "",
        size: int = 2,
        *,
        snapshot: str = "",
        dry_run: Sequence[str] = ("/bin/sh", "-c", ":"),
        reserves: Reserves | None = None,
        host: Host | None = None,
        dirs: StateDirs | None = None,
        **options: Unpack[OptionInputs],
    ) -> None:
        from firkin.core.pool import AsyncWarmPool

        self._pool = AsyncWarmPool(
            image, size, snapshot=snapshot, dry_run=dry_run, reserves=reserves, host=host, dirs=dirs, **options
        )

    @property
    def ready(self) -> int:
        """As `AsyncWarmPool.ready`."""
        return self._pool.ready

    def filled(self) -> None:
        """As `AsyncWarmPool.filled`."""
        engine().call(self._pool.filled())

    def emptied(self) -> None:
        """As `AsyncWarmPool.emptied`."""
        engine().call(self._pool.emptied())

    def lease(
        self, command: Sequence[str] = (), *, timeout: float | None = None, **options: Unpack[OptionInputs]
    ) -> Container:
        """As `AsyncWarmPool.lease`."""
        return Container(engine().call(self._pool.lease(command, timeout=timeout, **options)))

    def close(self) -> None:
        """As `AsyncWarmPool.aclose`."""
        engine().call(self._pool.aclose())

    def __enter__(self) -> Self:
        engine().call(self._pool.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        engine().call(self._pool.__aexit__(kind, error, trace))


def warm_image(
    image: str,
    run: Sequence[str] = (),
    *,
    dirs: StateDirs | None = None,
    progress: AbstractContextManager[Progress] | None = None,
    **options: Unpack[OptionInputs],
) -> WarmInfo:
    """As `warm_image_async`."""
    from firkin.core.warm import warm_image_async

    return engine().call(warm_image_async(image, run, dirs=dirs, progress=progress, **options))
