"""What the owner of a container does for another process that copies: it carries the bytes between the two links."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from firkin.core.copy.peer import InOptions, dialled

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from firkin.core.container import AsyncContainer
    from firkin.vminitd.control import ControlHandler
    from firkin.vminitd.link import Link
    from firkin.vminitd.stream import Stream

__all__ = ["copy_handlers"]


def copy_handlers(container: AsyncContainer) -> dict[str, ControlHandler]:
    """Handlers of `StatFile`, `CopyIn` and `CopyOut`, by their fields in `Request.call`."""

    async def stat_file(call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        found = await container.copy_peer().stat(call.path, follow=call.follow)
        return pb.Document(json=json.dumps(found._asdict()))

    async def copy_in(call: Any, link: Link) -> None:
        peer, options = container.copy_peer(), InOptions(**json.loads(call.options_json))
        async with (
            dialled(peer.link, lambda port: peer.copy_in(call.path, port, options)) as guest,
            await link.open(call.port) as caller,
        ):
            await _carry(caller, guest)

    async def copy_out(call: Any, link: Link) -> None:
        peer, follow = container.copy_peer(), bool(json.loads(call.options_json)["follow"])
        async with (
            dialled(peer.link, lambda port: peer.copy_out(call.path, port, follow=follow)) as guest,
            await link.open(call.port) as caller,
        ):
            await _carry(guest, caller)

    return {"stat_file": stat_file, "copy_in": copy_in, "copy_out": copy_out}


async def _carry(source: Stream, sink: Stream) -> None:
    while data := await source.read():
        await sink.write(data)
    await sink.end()
