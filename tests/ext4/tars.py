"""Layers for tests, made by the standard library's tarfile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any) -> Entry:
    """One member; `fields` are those of TarInfo, and `xattrs` a dictionary of names and values."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_700_000_000
    for key, value in fields.pop("xattrs", {}).items():
        info.pax_headers[f"SCHILY.xattr.{key}"] = value.decode(errors="surrogateescape")
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def folder(name: str, **fields: Any) -> Entry:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str, **fields: Any) -> Entry:
    return entry(name, tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str) -> Entry:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def whiteout(path: str) -> Entry:
    parent, slash, name = path.rpartition("/")
    return entry(f"{parent}{slash}.wh.{name}")


def opaque(path: str) -> Entry:
    return entry(f"{path}/.wh..wh..opq")


def tar(entries: Iterable[Entry], form: int = tarfile.PAX_FORMAT) -> bytes:
    """The bytes of a layer."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form, errors="surrogateescape") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def bulk(names: Iterable[bytes], *, kind: bytes = tarfile.REGTYPE, content: bytes = b"", target: bytes = b"") -> bytes:
    """A layer of many members that differ only by name (up to 100 bytes), made much faster than by tarfile."""
    info, _ = entry("", kind, content, linkname=target.decode())
    header = info.tobuf(tarfile.GNU_FORMAT)
    before, after = b" " * 8, header[156:]
    rest = sum(header[100:148]) + sum(before) + sum(after)
    body = content + bytes(-len(content) % 512)
    parts: list[bytes] = []
    for name in names:
        parts += (name.ljust(100, b"\0"), header[100:148], b"%06o\0 " % (sum(name) + rest), after, body)
    return b"".join(parts)
