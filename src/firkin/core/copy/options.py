"""What can be said about a copy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, TypeAlias, TypedDict

from firkin.types import Size

__all__ = ["CopyProgress", "GetOptions", "HostSource", "HostTarget", "PutHow", "PutOptions"]

HostSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path; or the content of one file: bytes, or a seekable file from where it stands."""
HostTarget: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path; or a file that the content of one file is written to."""
CopyProgress: TypeAlias = Callable[[int], object]
"""Told, now and then, how many bytes have passed."""


class PutHow(TypedDict, total=False):
    """`follow`: a source that is a symbolic link is what it leads to. `create_parents`: make missing folders above the
    destination. Owner in the guest: `uid` and `gid` (0), or each file's own with `preserve_owner`.
    """

    follow: bool
    create_parents: bool
    preserve_owner: bool
    uid: int
    gid: int


class PutOptions(PutHow, total=False):
    """`mode`: of content that is no file (0o644). `timeout`: seconds."""

    mode: int | None
    timeout: float | None
    progress: CopyProgress | None


class GetOptions(TypedDict, total=False):
    """`follow`: a source that is a symbolic link is what it leads to. `preserve_owner`: as root, files get the owners
    they have in the guest. `limit`: the most bytes of archive, and of files' sizes (64 GiB). `max_entries`: the most
    files, folders and links (1,000,000). `timeout`: seconds.
    """

    follow: bool
    preserve_owner: bool
    limit: Size | int | str
    max_entries: int
    timeout: float | None
    progress: CopyProgress | None
