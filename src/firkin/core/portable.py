"""Snapshots as one file that goes from host to host: a tar of sparse members, compressed with zstd.

The manifest comes first; then its files, each with its map of data (pax, GNU sparse 1.0: GNU tar reads it too). What is
imported is bounded, verified as a whole, and only then gets a name.
"""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from firkin import faults
from firkin.core.snapshots import Snapshots
from firkin.errors import InvalidInputError, StateError
from firkin.vmm.host import boot_id
from firkin.vmm.saved import open_saved, read_manifest

if TYPE_CHECKING:
    from firkin.types import StateDirs

__all__ = ["export_snapshot", "import_snapshot"]

_HALF = faults.declare("snapshot.export-half", "a snapshot's archive is half written and has no name")
_UNPACKED = faults.declare("snapshot.import-unpacked", "an archive is unpacked under a temporary name, not verified")
_MANIFEST = "manifest.json"
_BLOCK = 512
_CHUNK = 1 << 20
_WINDOW_MAX = 128 << 20
_LARGEST_MANIFEST = 4 << 20
_LARGEST_FILE = 4 << 40
_MOST_FILES = 128
_LEVEL = 3


def export_snapshot(name: str, destination: Path | IO[bytes], dirs: StateDirs) -> int:
    """Write the snapshot, verified, as one archive; the bytes written. A file appears whole, or not at all.

    Raises `NotFoundError`, `StateError`, `InvalidInputError` (there is a file of that name already).
    """
    with open_saved(Snapshots(dirs).path(name), boot_id=boot_id(), what=f"snapshot {name}") as saved:
        manifest = (saved.folder / _MANIFEST).read_bytes()
        if not isinstance(destination, Path):
            return _write(destination, manifest, saved.files)
        with _appearing(destination) as out:
            return _write(out, manifest, saved.files)


def import_snapshot(source: IO[bytes], name: str, dirs: StateDirs) -> None:
    """Read an archive that `export_snapshot` wrote, by whomever, and publish it as `name` once it is verified.

    Raises `StateError` for one that is damaged, not whole, or no snapshot's.
    """
    with Snapshots(dirs).making(name) as folder:
        try:
            _unpack(source, folder)
        except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
            raise StateError(f"the archive is no snapshot's: {error}", hint="export it again") from error
        faults.point(_UNPACKED)
        # Nothing is remembered of its files yet, so that this hashes all of them.
        open_saved(folder, boot_id=boot_id(), what="the archive").close()


# ---- writing


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file without a name, which it gets at the end of the block: nothing is left of one that is killed."""
    if path.exists():
        raise InvalidInputError(f"there is a file {path} already", value=path, hint="remove it, or choose another name")
    try:
        fd = os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInputError(f"can't write in {path.parent}: {error.strerror}", value=path) from error
    with os.fdopen(fd, "wb") as out:
        yield out
        out.flush()
        os.fsync(fd)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        finally:
            os.close(folder)


def _write(out: IO[bytes], manifest: bytes, files: dict[str, int]) -> int:
    import zstandard

    counted, compressor = _Counting(out), zstandard.ZstdCompressor(level=_LEVEL, threads=-1)
    with (
        compressor.stream_writer(cast("IO[bytes]", counted), closefd=False) as packed,
        tarfile.open(fileobj=cast("IO[bytes]", packed), mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        member = tarfile.TarInfo(_MANIFEST)
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
        for name, fd in files.items():
            _add_sparse(archive, name, fd)
            faults.point(_HALF)
    return counted.count


class _Counting:
    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.count = 0

    def write(self, data: bytes) -> int:
        self.count += len(data)
        return self._out.write(data)

    def flush(self) -> None:
        self._out.flush()


def _add_sparse(archive: tarfile.TarFile, name: str, fd: int) -> None:
    """GNU tar's manual, "Sparse Formats", version 1.0: the map, as decimal lines, is the first of the member's data."""
    size = os.fstat(fd).st_size
    runs = list(_data_runs(fd, size))
    if sum(runs[-1] if runs else (0,)) < size:
        # GNU tar learns from such an entry that the file ends with a hole.
        runs.append((size, 0))
    numbers = [len(runs), *(number for run in runs for number in run)]
    table = "".join(f"{number}\n" for number in numbers).encode()
    table += bytes(-len(table) % _BLOCK)
    member = tarfile.TarInfo(f"GNUSparseFile.0/{name}")
    member.size = len(table) + sum(length for _, length in runs)
    member.mode = 0o600
    member.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    archive.addfile(member, cast("IO[bytes]", _Runs(fd, table, runs)))


def _data_runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is no hole."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, end = offset, size
        yield start, end - start
        offset = end


class _Runs:
    """A file object that reads a table and then the file's runs, as tarfile asks for them."""

    def __init__(self, fd: int, table: bytes, runs: list[tuple[int, int]]) -> None:
        self._parts = self._read(fd, table, runs)
        self._rest = b""

    @staticmethod
    def _read(fd: int, table: bytes, runs: list[tuple[int, int]]) -> Iterator[bytes]:
        yield table
        for offset, length in runs:
            for begin in range(offset, offset + length, _CHUNK):
                yield os.pread(fd, min(_CHUNK, offset + length - begin), begin)

    def read(self, count: int) -> bytes:
        while len(self._rest) < count:
            part = next(self._parts, b"")
            if not part:
                break
            self._rest += part
        data, self._rest = self._rest[:count], self._rest[count:]
        return data


# ---- reading


def _unpack(source: IO[bytes], folder: Path) -> None:
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
    try:
        with (
            unpacker.stream_reader(source, read_across_frames=True, closefd=False) as plain,
            tarfile.open(fileobj=cast("IO[bytes]", plain), mode="r|") as archive,
        ):
            manifest = _first(archive, folder)
            described = dict(manifest["files"])
            if len(described) > _MOST_FILES:
                raise ValueError("too many files")
            while (member := archive.next()) is not None:
                _extract(archive, member, described, folder)
            if described:
                raise ValueError(f"{sorted(described)[0]} is missing")
    except zstandard.ZstdError as error:
        raise ValueError(f"it is not packed with zstd, or damaged: {error}") from error


def _first(archive: tarfile.TarFile, folder: Path) -> dict[str, Any]:
    member = archive.next()
    if member is None or member.name != _MANIFEST or not member.isreg() or member.size > _LARGEST_MANIFEST:
        raise ValueError("it does not begin with a manifest")
    content = archive.extractfile(member)
    assert content is not None
    (folder / _MANIFEST).write_bytes(content.read())
    return read_manifest(folder)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, described: dict[str, Any], folder: Path) -> None:
    """One file, if the manifest has it, once, of that size. Its name is the manifest's, which holds no path."""
    if not (member.isreg() or member.issparse()) or member.name not in described:
        raise ValueError(f"{member.name[:80]!r} is not in its manifest")
    size = int(described.pop(member.name)["bytes"])
    if member.size != size or size > _LARGEST_FILE:
        raise ValueError(f"{member.name} is not as long as its manifest says")
    runs: list[tuple[int, int]] = getattr(member, "sparse", None) or [(0, size)]
    if any(offset < 0 or length < 0 or offset + length > size for offset, length in runs):
        raise ValueError(f"{member.name} has data outside of itself")
    archive.makefile(member, folder / member.name)
    # A RAM file is opened for writing by QEMU before 8.2, as another user; nobody else gets at it in this folder.
    (folder / member.name).chmod(0o666 if member.name == "ram" else 0o600)
    with suppress(OSError), (folder / member.name).open("rb") as file:
        os.fsync(file.fileno())
