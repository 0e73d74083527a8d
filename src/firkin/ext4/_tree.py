"""The tree under construction: one table of inode rows and one dictionary for each directory."""

from __future__ import annotations

from firkin.errors import ImageError
from firkin.ext4._blocks import BlockWriter
from firkin.ext4._extents import NO_EXTENTS, Run
from firkin.ext4._inode import Attributes, directory_attributes, pack_inode
from firkin.ext4._layout import BLOCK_SIZE, FIRST_INODE, INDEX_FLAG, INODE, INODE_SIZE, MAX_LINKS, ROOT_INODE
from firkin.ext4._xattr import XattrStore
from firkin.ext4.limits import Budget

__all__ = ["Tree"]

_LINKS = 26  # offsets in a row
_MAP = 40
_XATTR_BLOCK = 104
_EMPTY_ROW = bytes(INODE_SIZE)


class Tree:
    """Inodes and names. Row n-1 of `table` is inode n, so the table goes to disk as it is.

    `directories` gives the names of each directory, `parents` its parent. `freed` collects the block ranges of
    removed files. `generation` changes whenever a path that resolved may resolve otherwise. From the second layer on
    (`tracking`), `fresh` has the names that the current layer itself put into each directory, which its whiteouts do
    not touch; nothing of a lower layer is left in the directories of `opaque`.
    """

    def __init__(self, blocks: BlockWriter, budget: Budget, timestamp: int) -> None:
        self.table = bytearray(INODE_SIZE * (FIRST_INODE - 1))
        self.directories: dict[int, dict[bytes, int]] = {}
        self.parents: dict[int, int] = {ROOT_INODE: ROOT_INODE}
        self.freed: list[tuple[int, int]] = []
        self.unused: list[int] = []
        self.generation = 0
        self.tracking = False
        self.fresh: dict[int, set[bytes]] = {}
        self.opaque: set[int] = set()
        self.xattrs = XattrStore(blocks)
        self._budget = budget
        self._layouts: dict[int, tuple[list[Run], list[int]]] = {}
        self._targets: dict[int, bytes] = {}
        self._default = directory_attributes(0o755, timestamp)
        self.set_row(ROOT_INODE, pack_inode(self._default, 0, NO_EXTENTS, 0, 2))
        self.directories[ROOT_INODE] = {}

    @property
    def inode_count(self) -> int:
        """The highest inode number handed out."""
        return len(self.table) // INODE_SIZE

    def begin_layer(self, index: int) -> None:
        """Forget what the previous layer put where."""
        self.tracking = index > 0
        self.fresh = {}
        self.opaque = set()

    def add(self, row: bytes) -> int:
        """Give `row` an inode number."""
        if self.unused:
            number = self.unused.pop()
            self.set_row(number, row)
            return number
        self.table += row
        number = len(self.table) // INODE_SIZE
        self._budget.inodes(number)
        return number

    def put_directory(self, parent: int, name: bytes, attributes: Attributes) -> None:
        """Let `name` be a directory: an existing one gets other attributes, anything else is replaced."""
        names = self.directories[parent]
        existing = names.get(name)
        if existing is not None and existing in self.directories:
            self.set_directory(existing, attributes)
            return
        if existing is not None:
            self.remove(parent, name)
        number = self.add(pack_inode(attributes, 0, NO_EXTENTS, 0, 2))
        self.directories[number] = {}
        self.parents[number] = parent
        names[name] = number

    def make_missing(self, parent: int, name: bytes) -> int:
        """Make a parent directory that no layer describes: 0755, owned by root. A file in its place is removed."""
        self.put_directory(parent, name, self._default)
        return self.directories[parent][name]

    def set_directory(self, number: int, attributes: Attributes) -> None:
        """Give an existing directory other attributes."""
        self._release_xattrs(number)
        self.set_row(number, pack_inode(attributes, 0, NO_EXTENTS, 0, 2))

    def set_row(self, number: int, row: bytes) -> None:
        """Replace a whole row."""
        self.table[(number - 1) * INODE_SIZE : number * INODE_SIZE] = row

    def place_directory(
        self, number: int, *, links: int, size: int, block_map: bytes, blocks: int, hashed: bool
    ) -> None:
        """Say where a directory's own blocks are, once they are written."""
        at = (number - 1) * INODE_SIZE
        fields = list(INODE.unpack_from(self.table, at))
        has_xattr_block = fields[14] != 0
        fields[2], fields[8], fields[9] = size & 0xFFFFFFFF, links, (blocks + has_xattr_block) * (BLOCK_SIZE // 512)
        fields[10] |= INDEX_FLAG if hashed else 0
        fields[12], fields[15] = block_map, size >> 32
        INODE.pack_into(self.table, at, *fields)

    def is_symlink(self, number: int) -> bool:
        return number in self._targets

    def remember(self, number: int, runs: list[Run], tree_blocks: list[int]) -> None:
        """Keep what it takes to free a file of more than one extent."""
        self._layouts[number] = runs, tree_blocks

    def set_target(self, number: int, target: bytes) -> None:
        """Keep the target of a symlink."""
        self._targets[number] = target

    def target(self, number: int) -> bytes:
        return self._targets[number]

    def put(self, parent: int, name: bytes, number: int) -> None:
        """Let `name` mean the inode `number`, in place of whatever it meant."""
        if name in self.directories[parent]:
            self.remove(parent, name)
        self.directories[parent][name] = number

    def link(self, parent: int, name: bytes, number: int) -> None:
        """Make a hard link."""
        names = self.directories[parent]
        if names.get(name) == number:
            return
        at = (number - 1) * INODE_SIZE + _LINKS
        links = int.from_bytes(self.table[at : at + 2], "little") + 1
        if links > MAX_LINKS:
            raise ImageError(f"a file has more than {MAX_LINKS} hard links")
        self.table[at : at + 2] = links.to_bytes(2, "little")
        self.put(parent, name, number)

    def remove(self, parent: int, name: bytes) -> None:
        """Remove a name and all that is below it."""
        pending = [self.directories[parent].pop(name)]
        steps = 0
        while pending:
            number = pending.pop()
            children = self.directories.pop(number, None)
            if children is None:
                self._unlink(number)
                continue
            self.generation += 1
            pending += children.values()
            del self.parents[number]
            self.fresh.pop(number, None)
            self.opaque.discard(number)
            self._free(number)
            steps += 1
            if not steps & 0xFF:
                self._budget.check_time()

    def mark_fresh(self, parent: int, name: bytes) -> None:
        """Note that the current layer has this name itself."""
        if self.tracking:
            self.fresh.setdefault(parent, set()).add(name)

    def hide(self, parent: int, name: bytes) -> None:
        """A whiteout: remove what lower layers put at `name`, and keep what this layer put there or below."""
        if self.tracking and name in self.directories[parent]:
            self._strip([(parent, name, False)])

    def hide_all(self, directory: int) -> None:
        """An opaque directory: `hide` for each of its names."""
        if self.tracking and directory not in self.opaque:
            self.opaque.add(directory)
            self._strip([(directory, name, False) for name in self.directories[directory]])

    def _strip(self, pending: list[tuple[int, bytes, bool]]) -> None:
        steps = 0
        while pending:
            parent, name, emptied = pending.pop()
            number = self.directories[parent][name]
            children = self.directories.get(number)
            fresh = name in self.fresh.get(parent, ())
            steps += 1
            if not steps & 0xFF:
                self._budget.check_time()
            if children and not emptied and number not in self.opaque:
                self.opaque.add(number)
                pending.append((parent, name, True))
                pending += [(number, child, False) for child in children]
            elif not fresh and not children:
                self.remove(parent, name)
            elif not fresh:
                self.set_directory(number, self._default)  # only implied by what this layer has below it

    def _unlink(self, number: int) -> None:
        if number in self._targets:
            self.generation += 1
        at = (number - 1) * INODE_SIZE + _LINKS
        links = int.from_bytes(self.table[at : at + 2], "little") - 1
        if links:
            self.table[at : at + 2] = links.to_bytes(2, "little")
            return
        self._targets.pop(number, None)
        self._free_blocks(number)
        self._free(number)

    def _free_blocks(self, number: int) -> None:
        if number in self._layouts:
            runs, tree_blocks = self._layouts.pop(number)
            self.freed += [(physical, count) for _, physical, count in runs]
            self.freed += [(block, 1) for block in tree_blocks]
            return
        at = (number - 1) * INODE_SIZE + _MAP
        one = self.table[at : at + 24]
        if one[:4] == NO_EXTENTS[:2] + b"\1\0":  # a single extent (see encode_one)
            self.freed.append((int.from_bytes(one[20:24], "little"), int.from_bytes(one[16:18], "little")))

    def _release_xattrs(self, number: int) -> None:
        at = (number - 1) * INODE_SIZE + _XATTR_BLOCK
        block = int.from_bytes(self.table[at : at + 4], "little")
        if block and self.xattrs.release(block):
            self.freed.append((block, 1))

    def _free(self, number: int) -> None:
        self._release_xattrs(number)
        self.set_row(number, _EMPTY_ROW)
        self.unused.append(number)
