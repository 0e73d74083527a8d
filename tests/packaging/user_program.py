"""What a user writes, for a strict type checker to look at; nothing runs it."""

from __future__ import annotations

import firkin
from firkin import AsyncContainer, Container, ExitStatus, FirkinError, Image, ImageStore, Size, Stdio


def blocking() -> tuple[str | bytes | None, int, ExitStatus]:
    result = firkin.run("busybox", ["echo", "hi"], text=True, env={"A": "1"}, memory="256m", cpus=1)
    with Container.launch("busybox", ["sleep", "100"], name="x", memory=Size.mib(256), mounts=["data:/data"]) as box:
        process = box.exec(["cat"], stdin=Stdio.PIPED, stdout=Stdio.PIPED)
        if process.stdin is not None and process.stdout is not None:
            process.stdin.write(b"x")
            data: bytes = process.stdout.read()
            assert data
        status: ExitStatus = process.wait(timeout=3)
        box.put("notes", "/tmp/")
        used: int = box.stats().memory.current
        assert used
        assert status.code == 0
    return result.stdout, result.returncode, result.status


async def with_asyncio() -> Image:
    try:
        async with await AsyncContainer.launch("busybox", ["sleep", "100"]) as box:
            await box.run(["id"], text=True, check=True)
    except FirkinError as error:
        hint: str | None = error.hint
        assert hint
    return ImageStore().resolve("busybox")


def wrong() -> None:
    firkin.run("busybox", ["true"], memroy="1g")  # type: ignore[call-arg]
    firkin.run("busybox", ["true"], cpus="two")  # type: ignore[arg-type]
