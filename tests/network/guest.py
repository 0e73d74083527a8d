"""A container that tries what a test tells it, by `scanner.py` inside."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from firkin import AsyncContainer, Stdio
from firkin.core.networking import REFUSED
from firkin.core.process import AsyncProcess

__all__ = ["Guest", "guest"]

SCANNER = Path(__file__).with_name("scanner.py").read_text()


class Guest:
    """Its methods are those of the scanner; each gives what came of it."""

    def __init__(self, container: AsyncContainer, process: AsyncProcess) -> None:
        self.container = container
        self._process = process
        self._rest = b""

    async def do(self, what: str, **given: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.write(json.dumps({"do": what, **given}).encode() + b"\n")
        while b"\n" not in self._rest:
            data = await self._process.stdout.read()
            assert data, "the scanner ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def tcp(self, address: str, port: int = 80, **given: object) -> str:
        return str(await self.do("tcp", address=address, port=port, **given))

    async def udp(self, address: str, port: int = 7, **given: object) -> str:
        return str(await self.do("udp", address=address, port=port, **given))

    async def name(self, text: str) -> Any:
        return await self.do("name", text=text)

    async def dns(self, server: str, text: str, **given: object) -> Any:
        return await self.do("dns", server=server, text=text, **given)

    def refusals(self) -> list[dict[str, Any]]:
        """What was reported so far."""
        path = self.container.vm.folder.path / REFUSED
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@asynccontextmanager
async def guest(**options: Any) -> AsyncIterator[Guest]:
    """A container of the Python image with these options and the scanner in it."""
    options.setdefault("dns", _dns())
    async with await AsyncContainer.launch("localhost/debian-python", ["sleep", "600"], **options) as container:
        process = await container.exec(
            ["python3", "-u", "-c", SCANNER], stdin=Stdio.PIPED, stdout=Stdio.PIPED, stderr=Stdio.INHERIT
        )
        yield Guest(container, process)
        await process.kill()


def _dns() -> Any:
    from firkin.core.name_service import DnsConfig

    return DnsConfig(("9.9.9.9",))
