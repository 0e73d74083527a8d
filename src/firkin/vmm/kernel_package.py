"""Debian's kernel packages: unpacked for this user alone, nothing is installed.

A package is an `ar` archive (deb(5)) with the files in its member `data.tar.*`; `dpkg` is not needed to read it.
"""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from firkin import faults
from firkin.errors import InvalidInputError
from firkin.types.state import StateDirs
from firkin.vmm.kernel import extract_vmlinux

__all__ = ["keep_file", "kernel_folder", "unpack_package"]

_UNPACKED = faults.declare("kernel.before-publish", "a kernel is unpacked under a temporary name")

_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60
# A kernel with all its modules has 100 to 600 MB.
_MOST_BYTES = 2 << 30


def kernel_folder(dirs: StateDirs) -> Path:
    """Where this user's kernels are, a folder each; `find_kernel` looks there first."""
    return dirs.make("cache", "assets") / "kernel"


def unpack_package(package: Path, dirs: StateDirs) -> Path:
    """Unpack the kernel and the modules of a `.deb` into a folder named by its release; the folder.

    What was there for the same release is replaced. Raises `InvalidInputError` for what is no kernel's package.
    """
    with _fresh(dirs) as fresh:
        try:
            with package.open("rb") as file:
                _extract(_data(file, package), fresh)
        except OSError as error:
            raise InvalidInputError(f"can't unpack {package}: {error.strerror or error}", value=package) from error
        except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
            raise InvalidInputError(f"{package} is damaged", value=package) from error
        images = sorted((fresh / "boot").glob("vmlinuz-*"))
        if not images:
            raise InvalidInputError(f"there is no kernel in {package}", value=package, hint="a linux-image-… package")
        return _publish(fresh, images[-1].name.removeprefix("vmlinuz-"), dirs)


def keep_file(kernel: Path, modules: Path | None, dirs: StateDirs) -> Path:
    """Copy the kernel file `kernel` and its folder of modules; the folder of both.

    Raises `InvalidInputError` for what is no kernel.
    """
    release = modules.name if modules else kernel.name.partition("-")[2] or kernel.name
    with _fresh(dirs) as fresh:
        (fresh / "boot").mkdir()
        target = fresh / "lib/modules" / release
        try:
            extract_vmlinux(kernel.read_bytes())
            shutil.copyfile(kernel, fresh / "boot" / f"vmlinuz-{release}")
            if modules is None:
                target.mkdir(parents=True)
            else:
                shutil.copytree(modules, target, symlinks=True, ignore=shutil.ignore_patterns("build", "source"))
        except (OSError, shutil.Error) as error:
            raise InvalidInputError(f"can't copy the kernel {kernel}: {error}", value=kernel) from error
        return _publish(fresh, release, dirs)


@contextmanager
def _fresh(dirs: StateDirs) -> Iterator[Path]:
    """An empty folder for one kernel, beside the others. One process at a time; what a dead one left goes first."""
    parent = kernel_folder(dirs)
    parent.mkdir(exist_ok=True, mode=0o700)
    lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fresh = parent / ".new"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        os.close(lock)


def _publish(fresh: Path, release: str, dirs: StateDirs) -> Path:
    faults.point(_UNPACKED)
    target = kernel_folder(dirs) / release
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    return target


def _data(file: IO[bytes], package: Path) -> tarfile.TarFile:
    """The files of a package, as a tar to be read once from its beginning to its end."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise InvalidInputError(f"{package} is not a Debian package", value=package)
    while len(header := file.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].decode("ascii", "replace").rstrip(" /"), header[48:58].strip()
        if not size.isdigit() or header[58:] != b"`\n":
            break
        if not name.startswith("data.tar"):
            # Members begin at even offsets.
            file.seek(int(size) + int(size) % 2, os.SEEK_CUR)
            continue
        return tarfile.open(fileobj=_unpacked(file, name.removeprefix("data.tar")), mode="r|")
    raise InvalidInputError(f"{package} is damaged, or not a Debian package", value=package)


def _unpacked(file: IO[bytes], ending: str) -> IO[bytes]:
    if ending == ".xz":
        return lzma.open(file)
    if ending == ".gz":
        return cast("IO[bytes]", gzip.open(file))
    if ending == ".zst":
        import zstandard

        return cast("IO[bytes]", zstandard.ZstdDecompressor().stream_reader(file))
    return file


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the regular files of `/boot` and of `/lib/modules` below `folder`."""
    left = _MOST_BYTES
    with tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            parts = parts[1:] if parts[:1] in ((".",), ("/",)) else parts
            parts = parts[1:] if parts[:2] == ("usr", "lib") else parts
            wanted = parts[:2] == ("lib", "modules") or (parts[:1] == ("boot",) and parts[-1].startswith("vmlinuz-"))
            if not member.isreg() or not wanted or ".." in parts:
                continue
            left -= member.size
            content = tar.extractfile(member)
            if left < 0 or content is None:
                raise InvalidInputError("the package is larger than any kernel", value=member.name)
            path = folder.joinpath(*parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
