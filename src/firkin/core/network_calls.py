"""What the owner of a container does about its network for other processes: handlers of the control socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from firkin.core.container import AsyncContainer
    from firkin.vminitd.control import ControlHandler
    from firkin.vminitd.link import Link

__all__ = ["network_handlers"]


def network_handlers(container: AsyncContainer) -> dict[str, ControlHandler]:
    """By the name of their field in `Request.call`."""

    async def publish(call: Any, link: Link) -> Message:
        from firkin.vminitd._generated import control_pb2 as pb

        return pb.Document(json=json.dumps([port.as_document() for port in await container.publish(call.publication)]))

    async def unpublish(call: Any, link: Link) -> None:
        await container.unpublish(call.publication)

    async def set_policy(call: Any, link: Link) -> None:
        from firkin.network.policy import Policy

        await container.replace_policy(Policy.from_json(call.policy_json))

    return {"publish_port": publish, "unpublish_port": unpublish, "set_policy": set_policy}
