"""Putting a message into the field of a oneof that is of its kind, by the generated descriptors: no list to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["field_of", "put"]

M = TypeVar("M", bound="Message")


_known: dict[tuple[str, str], dict[str, str]] = {}


def field_of(box: type[Message], oneof: str, kind: type[Message]) -> str:
    """The field of `oneof` in messages of class `box` that holds a `kind`. KeyError: none does."""
    key = (box.DESCRIPTOR.full_name, oneof)
    if key not in _known:
        fields = box.DESCRIPTOR.oneofs_by_name[oneof].fields
        _known[key] = {field.message_type.name: field.name for field in fields if field.message_type is not None}
    return _known[key][kind.__name__]


def put(box: M, oneof: str, message: Message) -> M:
    """Set `oneof` of `box` to `message` and return `box`."""
    getattr(box, field_of(type(box), oneof, type(message))).CopyFrom(message)
    return box
