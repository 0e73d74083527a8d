"""Resolving paths inside the tree, as if chrooted into it: nothing leads out, no loop is followed."""

from __future__ import annotations

from firkin.errors import ImageError
from firkin.ext4._layout import ROOT_INODE
from firkin.ext4._tree import Tree
from firkin.ext4.limits import Budget

__all__ = ["Resolver", "split_path"]

_MAX_SYMLINKS = 40  # Linux: MAXSYMLINKS
_MAX_NAME = 255
_CACHE = 8192


def split_path(path: bytes, max_path: int) -> tuple[bytes, bytes]:
    """A member's parent path and name; the root has neither. `ImageError` for `..`, a NUL, or too long a part."""
    if len(path) > max_path:
        raise ImageError(f"a path in a layer is longer than {max_path} bytes", hint="raise Limits.max_path")
    if path.startswith(b"./"):
        path = path[2:]
    path = path.strip(b"/")
    if b"/." in path or b"//" in path or path[:1] == b".":
        parts = [part for part in path.split(b"/") if part and part != b"."]
        if b".." in parts:
            raise ImageError(f"a path in a layer leads upwards: {path[:200]!r}")
        path = b"/".join(parts)
    parent, _, name = path.rpartition(b"/")
    if len(name) > _MAX_NAME:
        raise ImageError(f"a name in a layer is longer than {_MAX_NAME} bytes: {name[:80]!r}...")
    if b"\0" in path:
        raise ImageError(f"a path in a layer holds a NUL: {path[:200]!r}")
    return parent, name


class Resolver:
    """Finds directories by path, remembering those found until a directory or symlink goes away."""

    def __init__(self, tree: Tree, budget: Budget) -> None:
        self._tree = tree
        self._budget = budget
        self._found: dict[bytes, int] = {b"": ROOT_INODE}
        self._generation = 0

    def make(self, path: bytes) -> int:
        """The directory at `path` (as `split_path` returns it), symlinks followed, what is missing made.

        A file in the way is replaced: the layer says that there is a directory.
        """
        self._refresh()
        found = self._found.get(path)
        if found is None:
            found = self._walk(path, make=True)
            assert found is not None
            self._remember(path, found)
        return found

    def find(self, path: bytes) -> int | None:
        """The same without changing anything; None where there is no directory."""
        self._refresh()
        found = self._found.get(path)
        if found is None:
            found = self._walk(path, make=False)
            if found is not None:
                self._remember(path, found)
        return found

    def _refresh(self) -> None:
        if self._generation != self._tree.generation:
            self._found = {b"": ROOT_INODE}
            self._generation = self._tree.generation

    def _remember(self, path: bytes, number: int) -> None:
        if self._generation == self._tree.generation and len(self._found) < _CACHE:
            self._found[path] = number

    def _walk(self, path: bytes, *, make: bool) -> int | None:
        tree = self._tree
        here, links = ROOT_INODE, 0
        pending = path.split(b"/")[::-1]
        while pending:
            part = pending.pop()
            if not part or part == b".":
                continue
            if part == b"..":
                here = tree.parents[here]
                continue
            child = tree.directories[here].get(part)
            if child is not None and child in tree.directories:
                here = child
            elif child is not None and tree.is_symlink(child):
                links += 1
                if links > _MAX_SYMLINKS:
                    raise ImageError(f"a path in a layer goes through too many symlinks: {path[:200]!r}")
                self._budget.check_time()
                target = tree.target(child)
                if target[:1] == b"/":
                    here = ROOT_INODE
                pending += target.split(b"/")[::-1]
            elif not make:
                return None
            else:
                here = self._make_part(here, part)
        return here

    def _make_part(self, parent: int, name: bytes) -> int:
        if len(name) > _MAX_NAME:
            raise ImageError(f"a name in a layer is longer than {_MAX_NAME} bytes: {name[:80]!r}...")
        return self._tree.make_missing(parent, name)
