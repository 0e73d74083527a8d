"""The peer of the link's throughput: the same virtio-serial port in the same VM, with dd(1) at the guest's end."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from firkin.types.state import StateDirs
from firkin.vmm.assets import resolve_assets
from firkin.vmm.config import VmConfig
from firkin.vmm.folder import VmFolder
from firkin.vmm.host import probe
from firkin.vmm.initramfs import file, newc
from firkin.vmm.launch import Boot, launch

__all__ = ["BLOCK", "BLOCKS", "WARM", "BarePort", "bare_port"]

BLOCK = 32768
# What is timed, and what goes before it, so that programs have started and buffers are full.
BLOCKS = 512
WARM = 64
_BUSYBOX = Path("/bin/busybox")
# One line "in N" or "out N" from the host moves N blocks of 32 KiB; "pipedin", "pipedout": through a pipe of two dd.
_INIT = b"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in /lib/modules/*.ko; do /bin/busybox insmod $module; done
while ! [ -e /dev/vport0p1 ]; do /bin/busybox usleep 10000; done
exec 3<>/dev/vport0p1
while read -r way count <&3; do
    case $way in
        in) /bin/busybox dd bs=32768 count=$count iflag=fullblock of=/dev/null <&3 2>/dev/null; echo done >&3 ;;
        out) /bin/busybox dd if=/dev/zero bs=32768 count=$count >&3 2>/dev/null ;;
        pipedin)
            /bin/busybox dd bs=32768 count=$count iflag=fullblock <&3 2>/dev/null |
                /bin/busybox dd bs=32768 of=/dev/null 2>/dev/null
            echo done >&3 ;;
        pipedout)
            /bin/busybox dd if=/dev/zero bs=32768 count=$count 2>/dev/null |
                /bin/busybox dd bs=32768 iflag=fullblock >&3 2>/dev/null ;;
        ready) echo done >&3 ;;
    esac
done
"""


class BarePort:
    """The host's end of the port; moves blocks of zeros in plain send and receive calls of up to 256 KiB."""

    def __init__(self, port: socket.socket) -> None:
        port.setblocking(False)
        self._port = port
        self._loop = asyncio.get_running_loop()

    async def ready(self) -> None:
        """Wait for the guest."""
        await self._loop.sock_sendall(self._port, b"ready\n")
        await self._loop.sock_recv(self._port, 100)

    async def write(self, way: str = "in") -> float:
        """Seconds to send `BLOCKS` of 32 KiB, until the guest has read them; `way`: "in" or "pipedin"."""
        data = bytes(8 * BLOCK)
        await self._loop.sock_sendall(self._port, b"%s %d\n" % (way.encode(), WARM + BLOCKS))
        for _ in range(WARM // 8):
            await self._loop.sock_sendall(self._port, data)
        began = time.perf_counter()
        for _ in range(BLOCKS // 8):
            await self._loop.sock_sendall(self._port, data)
        await self._loop.sock_recv(self._port, 100)
        return time.perf_counter() - began

    async def read(self, way: str = "out") -> float:
        """Seconds to receive `BLOCKS` of 32 KiB; `way`: "out" or "pipedout"."""
        buffer = memoryview(bytearray(8 * BLOCK))
        await self._loop.sock_sendall(self._port, b"%s %d\n" % (way.encode(), WARM + BLOCKS))
        await self._receive(buffer, WARM * BLOCK)
        began = time.perf_counter()
        await self._receive(buffer, BLOCKS * BLOCK)
        return time.perf_counter() - began

    async def _receive(self, buffer: memoryview, left: int) -> None:
        while left:
            left -= await self._loop.sock_recv_into(self._port, buffer[:left])


@asynccontextmanager
async def bare_port(dirs: StateDirs, config: VmConfig) -> AsyncIterator[BarePort]:
    """Boot the VM that Firkin would boot, with another /init, and give its port."""
    assets = resolve_assets(dirs, config.kernel)
    host = probe(dirs, assets, accel=config.accel)
    folder = VmFolder.claim(dirs, f"bench-{secrets.token_hex(4)}")
    try:
        # The kernel unpacks archives that follow one another; the later /init replaces the earlier.
        initramfs = folder.path / "initramfs"
        extra = newc([file("init", _INIT, 0o755), file("bin/busybox", _BUSYBOX.read_bytes(), 0o755)])
        initramfs.write_bytes(assets.initramfs.read_bytes() + extra)
        launched = launch(folder, config, host, Boot(replace(assets, initramfs=initramfs)))
        try:
            port = BarePort(launched.agent)
            async with asyncio.timeout(60):
                await port.ready()
            yield port
        finally:
            launched.close()
            launched.end()
    finally:
        folder.remove()
