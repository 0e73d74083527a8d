"""Reading tar of any dialect from an untrusted stream, bounded: for whoever needs the members and not an image."""

from firkin.ext4._header import CHAR, DIRECTORY, FIFO, HARDLINK, NODE, REGULAR, SYMLINK
from firkin.ext4._member import Member
from firkin.ext4._stream import LayerStream, Readable
from firkin.ext4._tar import members
from firkin.ext4.limits import Budget, Limits

__all__ = [
    "CHAR",
    "DIRECTORY",
    "FIFO",
    "HARDLINK",
    "NODE",
    "REGULAR",
    "SYMLINK",
    "Budget",
    "LayerStream",
    "Limits",
    "Member",
    "Readable",
    "members",
]
