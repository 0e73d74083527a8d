"""Layers applied to a tree of plain objects: slow, recursive, and simple enough to be read as the rule."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["dir", "file", "symlink", "hardlink", "fifo", "whiteout", "opaque"]


class RefusedError(Exception):
    """The layers make no sense: the writer has to refuse them too."""


@dataclass
class Node:
    """A file; `text` is its content or target."""

    mode: int
    uid: int = 0
    mtime: int = 0
    text: str = ""
    children: dict[str, Node] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # the children that the current layer itself names

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True)
class Change:
    """One member of a layer."""

    kind: Kind
    path: str
    text: str = ""
    mode: int = 0o644
    uid: int = 0
    mtime: int = 0


def apply_layers(layers: list[list[Change]]) -> Node:
    root = _folder()
    for number, layer in enumerate(layers):
        _forget(root)
        for change in layer:
            _apply(root, change, lowest=number == 0)
    return root


def _folder() -> Node:
    return Node(stat.S_IFDIR | 0o755)


def _forget(node: Node) -> None:
    node.named.clear()
    for child in node.children.values():
        _forget(child)


def _apply(root: Node, change: Change, *, lowest: bool) -> None:
    parts = change.path.split("/")
    if change.kind == "opaque":
        found = _walk(root, parts, make=False)
        if found and not lowest:
            for name in list(found.children):
                _hide(found, name)
        return
    parent = _walk(root, parts[:-1], make=change.kind != "whiteout")
    name = parts[-1]
    if change.kind == "whiteout":
        if parent and name in parent.children and not lowest:
            _hide(parent, name)
        return
    assert parent is not None
    if change.kind == "hardlink":
        target = change.text.split("/")
        source = _walk(root, target[:-1], make=False)
        linked = source.children.get(target[-1]) if source else None
        if linked is None or linked.is_folder:
            raise RefusedError
        parent.children[name] = linked
    elif change.kind == "dir":
        old = parent.children.get(name)
        node = old if old and old.is_folder else _folder()
        node.mode, node.uid, node.mtime = stat.S_IFDIR | change.mode, change.uid, change.mtime
        parent.children[name] = node
    else:
        kinds = {
            "file": stat.S_IFREG | change.mode,
            "fifo": stat.S_IFIFO | change.mode,
            "symlink": stat.S_IFLNK | 0o777,
        }
        parent.children.pop(name, None)
        parent.children[name] = Node(kinds[change.kind], change.uid, change.mtime, change.text)
    parent.named.add(name)


def _hide(parent: Node, name: str) -> None:
    """Take away what lower layers put there."""
    node = parent.children[name]
    for child in list(node.children):
        _hide(node, child)
    if name in parent.named:
        return
    if node.children:
        node.mode, node.uid, node.mtime = stat.S_IFDIR | 0o755, 0, 0
    else:
        del parent.children[name]


def _walk(root: Node, parts: list[str], *, make: bool) -> Node | None:
    trail = [root]
    pending = parts[::-1]
    links = 0
    while pending:
        part = pending.pop()
        here = trail[-1]
        child = here.children.get(part)
        if part in ("", "."):
            continue
        if part == "..":
            trail = trail[:-1] or trail
        elif child and child.is_folder:
            trail.append(child)
        elif child and stat.S_ISLNK(child.mode):
            links += 1
            if links > 40:
                raise RefusedError
            if child.text.startswith("/"):
                trail = [root]
            pending += child.text.split("/")[::-1]
        elif make:
            here.children[part] = _folder()
            here.named.discard(part)
            trail.append(here.children[part])
        else:
            return None
    return trail[-1]


def listing(root: Node) -> dict[str, tuple[Node, str]]:
    """Every path with its node."""
    found: dict[str, tuple[Node, str]] = {}
    pending = [("", root)]
    while pending:
        path, node = pending.pop()
        found[path or "/"] = node, node.text
        pending += [(f"{path}/{name}", child) for name, child in node.children.items()]
    return found
