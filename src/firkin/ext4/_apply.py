"""Applying a layer: what each member does to the tree (OCI image spec, layer.md, "Applying Changesets")."""

from __future__ import annotations

import stat

from firkin.errors import ImageError
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._content import SMALL, ContentWriter
from firkin.ext4._extents import NO_EXTENTS, encode, encode_one
from firkin.ext4._header import CHAR, DIRECTORY, FIFO, HARDLINK, NODE, REGULAR, SYMLINK
from firkin.ext4._inode import NO_XATTR_PLACE, Attributes, device_map, encode_time, pack_inode
from firkin.ext4._layout import BLOCK_SHIFT, BLOCK_SIZE, ROOT_INODE, blocks_of
from firkin.ext4._member import Member
from firkin.ext4._resolve import Resolver, split_path
from firkin.ext4._stream import LayerStream
from firkin.ext4._tar import members
from firkin.ext4._tree import Tree
from firkin.ext4.limits import Budget

__all__ = ["LayerApplier"]

_WHITEOUT = b".wh."
_WHITEOUT_META = b".wh..wh."  # AUFS's own files, of which only the opaque marker means something
_OPAQUE = b".wh..wh..opq"
_FAST_SYMLINK = 60
_TYPES = {
    REGULAR: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHAR: stat.S_IFCHR,
    NODE: stat.S_IFBLK,
    DIRECTORY: stat.S_IFDIR,
    FIFO: stat.S_IFIFO,
}
_CHECK_EVERY = 0x3F


class LayerApplier:
    """Turns members into inodes, names and blocks."""

    def __init__(self, tree: Tree, blocks: BlockWriter, budget: Budget, timestamp: int) -> None:
        self._tree = tree
        self._blocks = blocks
        self._content = ContentWriter(blocks)
        self._budget = budget
        self._resolver = Resolver(tree, budget)
        self._crtime = encode_time((timestamp, 0))

    def apply(self, stream: LayerStream) -> None:
        """Apply a whole layer and read its stream to the end."""
        limits = self._budget.limits
        resolver, tree = self._resolver, self._tree
        for count, member in enumerate(members(stream, limits)):
            if not count & _CHECK_EVERY:
                self._budget.check_time()
            path, name = split_path(member.name, limits.max_path)
            if name.startswith(_WHITEOUT):
                self._apply_whiteout(path, name)
                stream.skip(member.stored)
                continue
            if not name:
                self._apply_root(member)
                continue
            parent = resolver.make(path)
            if member.kind == DIRECTORY:
                tree.put_directory(parent, name, self._attributes(member))
            elif member.kind == HARDLINK:
                self._apply_link(parent, name, member)
            else:
                number = self._add_file(member, stream)
                tree.put(parent, name, number)
            tree.mark_fresh(parent, name)
        stream.drain()

    def _apply_whiteout(self, path: bytes, name: bytes) -> None:
        parent = self._resolver.find(path)
        if name == _OPAQUE:
            if parent is not None:
                self._tree.hide_all(parent)
        elif not name.startswith(_WHITEOUT_META):
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise ImageError(f"a layer holds a whiteout of no file: {path[:200] + b'/' + name!r}")
            if parent is not None:
                self._tree.hide(parent, hidden)

    def _apply_root(self, member: Member) -> None:
        if member.kind != DIRECTORY:
            raise ImageError("a layer replaces its root by something that is not a directory")
        self._tree.set_directory(ROOT_INODE, self._attributes(member))

    def _apply_link(self, parent: int, name: bytes, member: Member) -> None:
        tree = self._tree
        path, target = split_path(member.link, self._budget.limits.max_path)
        directory = self._resolver.find(path)
        number = tree.directories[directory].get(target) if directory is not None else None
        if number is None:
            raise ImageError(f"a layer links {member.name[:200]!r} to {member.link[:200]!r}, which does not exist")
        if number in tree.directories:
            raise ImageError(f"a layer links {member.name[:200]!r} to a directory")
        tree.link(parent, name, number)

    def _attributes(self, member: Member) -> Attributes:
        mtime = encode_time(member.mtime)
        atime = mtime if member.atime is None else encode_time(member.atime)
        place = self._tree.xattrs.place(member.xattrs, member.name) if member.xattrs else NO_XATTR_PLACE
        mode = _TYPES[member.kind] | (0o777 if member.kind == SYMLINK else member.mode)
        return Attributes(mode, member.uid, member.gid, mtime, atime, self._crtime, place)

    def _add_file(self, member: Member, stream: LayerStream) -> int:
        attributes = self._attributes(member)
        if member.kind == REGULAR:
            return self._add_regular(attributes, member, stream)
        if member.kind == SYMLINK:
            return self._add_symlink(attributes, member)
        block_map = bytes(60) if member.kind == FIFO else device_map(member.major, member.minor)
        return self._tree.add(pack_inode(attributes, 0, block_map, 0))

    def _add_regular(self, attributes: Attributes, member: Member, stream: LayerStream) -> int:
        size = member.size
        if size > SMALL or member.sparse is not None:
            runs = self._content.copy(member, stream)
            block_map, tree_blocks = encode(runs, self._blocks)
            held = sum(count for _, _, count in runs) + len(tree_blocks)
            number = self._tree.add(pack_inode(attributes, size, block_map, held))
            if runs and (len(runs) > 1 or runs[0][0] or tree_blocks or runs[0][2] != blocks_of(size)):
                self._tree.remember(number, runs, tree_blocks)
            return number
        if not size:
            return self._tree.add(pack_inode(attributes, 0, NO_EXTENTS, 0))
        at = stream.need(size)
        start = self._blocks.append(stream.view[at : at + size])
        count = (size + BLOCK_SIZE - 1) >> BLOCK_SHIFT
        return self._tree.add(pack_inode(attributes, size, encode_one(start, count), count))

    def _add_symlink(self, attributes: Attributes, member: Member) -> int:
        target = member.link
        if not target or len(target) >= BLOCK_SIZE or b"\0" in target:
            raise ImageError(f"the target of the symlink {member.name[:200]!r} is empty, too long or holds a NUL")
        if len(target) < _FAST_SYMLINK:
            row = pack_inode(attributes, len(target), target.ljust(60, b"\0"), 0)
        else:
            start = self._blocks.append(target)
            row = pack_inode(attributes, len(target), encode_one(start, 1), 1)
        number = self._tree.add(row)
        self._tree.set_target(number, target)
        return number
