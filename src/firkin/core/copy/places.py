"""Where a copy goes, by Docker's rules for `docker cp` (docs.docker.com, `docker container cp`).

A destination that is a folder takes the source in, under its name; `SOURCE/.` means what is in the folder. A
destination that is not there becomes the copy. A `/` behind a destination says that it must be a folder.
"""

from __future__ import annotations

import errno
import os
import posixpath
from pathlib import Path
from typing import NamedTuple

from firkin.core.copy.peer import CopyPeer, FileStat
from firkin.core.copy.unpack import HostPlace
from firkin.errors import AgentError, InvalidInputError

__all__ = ["GuestPlace", "guest_path", "guest_place", "host_place", "means_content", "says_folder"]

# As the kernel's (path_resolution(7)).
_MAX_LINKS = 40


class GuestPlace(NamedTuple):
    """`name` in `folder` of the guest; without a name, the copy's content goes into `folder`."""

    folder: str
    name: bytes | None


def means_content(path: str) -> bool:
    """Whether a source path stands for what is in the folder."""
    return path.endswith("/.") or path == "."


def says_folder(path: str) -> bool:
    """Whether a path can only be a folder's."""
    return path.endswith(("/", "/.", "/..")) or path in (".", "..")


def guest_path(path: str) -> str:
    """A path in the guest, absolute (from `/`) and without `.` and `..`. Raises `InvalidInputError`."""
    if "\0" in path or not path:
        raise InvalidInputError(f"{path!r} is no path in a container", value=path)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(
            f"the guest path {path!r} is not UTF-8", value=path, hint="copy the folder that it is in"
        ) from None
    return posixpath.normpath("/" + path.lstrip("/"))


async def guest_place(
    peer: CopyPeer, destination: str, source_name: bytes | None, *, source_is_folder: bool, create_parents: bool
) -> GuestPlace:
    """Where in the guest `destination` is, for a source called `source_name` (`None`: a folder's content).

    Raises `InvalidInputError` for a destination that does not fit the source, `AgentError`.
    """
    path = guest_path(destination)
    found = await _stat(peer, path, follow=True)
    if found is not None and found.is_folder:
        return GuestPlace(path, source_name)
    must_be_folder = says_folder(destination)
    if found is not None:
        if source_is_folder:
            raise InvalidInputError(f"a folder can't replace the file {path} of the container", value=destination)
        if must_be_folder:
            raise InvalidInputError(f"{path} of the container is no folder", value=destination)
    elif must_be_folder and not source_is_folder:
        if not create_parents:
            raise InvalidInputError(
                f"there is no folder {path} in the container", value=destination, hint="make it first"
            )
        return GuestPlace(path, source_name)
    return _named(await _through_links(peer, path))


async def _through_links(peer: CopyPeer, path: str) -> str:
    """The path that a symbolic link at `path` means in the end, be it there or not."""
    for _ in range(_MAX_LINKS):
        found = await _stat(peer, path, follow=False)
        if found is None or not found.is_link or not found.link_target:
            return path
        path = guest_path(posixpath.join(posixpath.dirname(path), found.link_target))
    raise InvalidInputError(f"{path} of the container leads through too many symbolic links", value=path)


def _named(path: str) -> GuestPlace:
    folder, name = posixpath.split(path)
    return GuestPlace(folder, name.encode())


async def _stat(peer: CopyPeer, path: str, *, follow: bool) -> FileStat | None:
    try:
        return await peer.stat(path, follow=follow)
    except AgentError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def host_place(destination: str | os.PathLike[str], source: str) -> HostPlace:
    """Where on this host `destination` is, for the guest's `source`. Symbolic links in it are the caller's: followed.

    Raises `InvalidInputError` where the folder for it is missing.
    """
    given = os.fspath(destination)
    path = Path(os.path.realpath(given))
    if path.is_dir():
        name = posixpath.basename(guest_path(source))
        return HostPlace(path, None if means_content(source) or not name else os.fsencode(name))
    if path.exists() and says_folder(given):
        raise InvalidInputError(f"{given} is no folder", value=given)
    if not path.parent.is_dir():
        raise InvalidInputError(f"there is no folder {path.parent}", value=given, hint="make it first")
    return HostPlace(path.parent, os.fsencode(path.name), says_folder(given))
