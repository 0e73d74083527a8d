"""QEMU's monitor, by the qemu.qmp library: connected at the first command, off the way of a start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from firkin.errors import VirtualMachineError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

    from firkin.vmm.folder import VmFolder

__all__ = ["Qmp"]

_LIMIT = 30.0


class Qmp:
    """The monitor of the VM in `folder`. One client at a time, so one of these a VM."""

    def __init__(self, folder: VmFolder) -> None:
        self._folder = folder
        self._client: QMPClient | None = None
        self._lock = asyncio.Lock()

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, fd: int | None = None
    ) -> object:
        """The answer to `command`; `fd` travels with it.

        Raises `VirtualMachineError`, also where no answer comes within 30 s.
        """
        from qemu.qmp import QMPError

        try:
            async with asyncio.timeout(_LIMIT), self._lock:
                client = await self._connected()
                if fd is not None:
                    client.send_fd_scm(fd)
                return await client.execute(command, arguments)
        except TimeoutError as error:
            raise VirtualMachineError(f"QEMU did not answer {command} within {_LIMIT:g} s") from error
        except (QMPError, OSError, EOFError) as error:
            raise VirtualMachineError(f"QEMU refused {command}: {error}") from error

    async def _connected(self) -> QMPClient:
        if self._client is None:
            from qemu.qmp import QMPClient

            client = QMPClient(self._folder.name)
            await client.connect(self._folder.connect("qmp.sock"))
            self._client = client
        return self._client

    async def aclose(self) -> None:
        """Disconnect. Safe to call again, and after QEMU's end."""
        client, self._client = self._client, None
        if client is None:
            return
        from qemu.qmp import QMPError

        try:
            await client.disconnect()
        except (QMPError, OSError, EOFError):
            # QEMU has ended, and with it the connection: there is nothing to disconnect.
            return
