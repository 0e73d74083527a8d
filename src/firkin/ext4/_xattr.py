"""Extended attributes: in the inode where they fit, else in one shared block (Linux: fs/ext4/xattr.h, xattr.c)."""

from __future__ import annotations

import hashlib
import struct

from firkin.errors import ImageError
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._layout import BLOCK_SIZE, XATTR_MAGIC

__all__ = ["INLINE_ROOM", "XATTR_PREFIXES", "XattrStore", "acl_from_disk"]

INLINE_ROOM = 96
XATTR_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}
_ENTRY = struct.Struct("<BBHIII")
_BLOCK_HEADER = struct.Struct("<IIIII12x")
_MAX_REFERENCES = 1024
_ACLS = (2, 3)
_ACL_NAMED = (0x02, 0x08)  # entries for a named user or group carry an id
_NO_ID = 0xFFFFFFFF

_Attribute = tuple[int, bytes, bytes]


class XattrStore:
    """Places the attributes of inodes; equal sets share a block, as the kernel's own cache would make them do."""

    def __init__(self, blocks: BlockWriter) -> None:
        self._blocks = blocks
        self._open: dict[bytes, int] = {}
        self._references: dict[int, int] = {}
        self._digests: dict[int, bytes] = {}

    def place(self, xattrs: dict[bytes, bytes], owner: bytes) -> tuple[bytes, int]:
        """The 96 bytes that follow the inode's fixed fields, and its xattr block or 0. `owner` is named in errors."""
        attributes = sorted(
            (_split(name, value, owner) for name, value in xattrs.items()), key=lambda a: (a[0], len(a[1]), a[1])
        )
        inline = _encode(attributes, INLINE_ROOM - 4, 0, hashed=False)
        if inline is not None:
            return struct.pack("<I", XATTR_MAGIC) + inline, 0
        body = _encode(attributes, BLOCK_SIZE - _BLOCK_HEADER.size, _BLOCK_HEADER.size, hashed=True)
        if body is None:
            raise ImageError(f"the extended attributes of {owner[:80]!r} do not fit into a block of {BLOCK_SIZE} bytes")
        return bytes(INLINE_ROOM), self._share(body)

    def release(self, block: int) -> bool:
        """Drop one inode's use of `block`; true where that was the last one."""
        self._references[block] -= 1
        if self._references[block]:
            return False
        del self._references[block]
        digest = self._digests.pop(block)
        if self._open.get(digest) == block:
            del self._open[digest]
        return True

    def finish(self) -> None:
        """Write the final reference counts (h_refcount, offset 4) of blocks that several inodes share."""
        self._blocks.flush()
        for block, references in self._references.items():
            if references != 1:
                self._blocks.write_at_offset(block, 4, struct.pack("<I", references))

    def _share(self, body: bytes) -> int:
        digest = hashlib.sha256(body).digest()
        block = self._open.get(digest)
        if block is not None and self._references[block] < _MAX_REFERENCES:
            self._references[block] += 1
            return block
        block = self._blocks.append(_BLOCK_HEADER.pack(XATTR_MAGIC, 1, 1, _block_hash(body), 0) + body)
        self._open[digest] = block
        self._references[block] = 1
        self._digests[block] = digest
        return block


def _split(name: bytes, value: bytes, owner: bytes) -> _Attribute:
    for index, prefix in XATTR_PREFIXES.items():
        if index in _ACLS:
            if name == prefix:
                return index, b"", _acl_to_disk(value, owner)
        elif name.startswith(prefix):
            rest = name[len(prefix) :]
            if 0 < len(rest) <= 255 and b"\0" not in rest:
                return index, rest, value
            break
    raise ImageError(f"ext4 can't hold the extended attribute {name[:80]!r} of {owner[:80]!r}")


def _encode(attributes: list[_Attribute], room: int, start: int, *, hashed: bool) -> bytes | None:
    """Entries from the front and values from the back; offsets count from `start` before the first entry."""
    size = sum(_ENTRY.size + _padded(len(name)) + _padded(len(value)) for _, name, value in attributes)
    if size + 4 > room:  # four zero bytes end the entries
        return None
    entries, values = b"", b""
    for index, name, value in attributes:
        padded = value.ljust(_padded(len(value)), b"\0")
        values = padded + values
        where = start + room - len(values) if value else 0
        digest = _entry_hash(name, padded) if hashed else 0
        entries += _ENTRY.pack(len(name), index, where, 0, len(value), digest)
        entries += name.ljust(_padded(len(name)), b"\0")
    return entries + bytes(room - size) + values


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _entry_hash(name: bytes, padded: bytes) -> int:
    digest = 0
    for byte in name:
        digest = ((digest << 5) ^ (digest >> 27) ^ byte) & 0xFFFFFFFF
    for (word,) in struct.iter_unpack("<I", padded):
        digest = ((digest << 16) ^ (digest >> 16) ^ word) & 0xFFFFFFFF
    return digest


def _block_hash(body: bytes) -> int:
    digest, at = 0, 0
    while body[at : at + 4] != b"\0\0\0\0":
        length, _, _, _, _, entry = _ENTRY.unpack_from(body, at)
        if not entry:
            return 0
        digest = ((digest << 16) ^ (digest >> 16) ^ entry) & 0xFFFFFFFF
        at += _ENTRY.size + _padded(length)
    return digest


def _acl_to_disk(value: bytes, owner: bytes) -> bytes:
    """From the form of system calls (version 2, eight bytes an entry) to that on disk (version 1; fs/ext4/acl.h)."""
    if len(value) % 8 != 4 or value[:4] != b"\2\0\0\0":
        raise ImageError(f"an access control list of {owner[:80]!r} is malformed")
    disk = b"\1\0\0\0"
    for tag, permissions, identity in struct.iter_unpack("<HHI", value[4:]):
        disk += struct.pack("<HH", tag, permissions)
        if tag in _ACL_NAMED:
            disk += struct.pack("<I", identity)
    return disk


def acl_from_disk(value: bytes) -> bytes:
    """The reverse, for the reader. `ImageError` where it is malformed."""
    result, at = b"\2\0\0\0", 4
    if value[:4] != b"\1\0\0\0":
        raise ImageError("an access control list in the image is malformed")
    while at < len(value):
        named = value[at] in _ACL_NAMED
        entry = value[at : at + (8 if named else 4)]
        if len(entry) < (8 if named else 4):
            raise ImageError("an access control list in the image is malformed")
        result += entry if named else entry + struct.pack("<I", _NO_ID)
        at += len(entry)
    return result
