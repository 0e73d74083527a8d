"""Snapshots as one file: whole on the other side, and nothing of a hostile one gets anywhere."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from firkin.core.portable import export_snapshot, import_snapshot
from firkin.core.snapshots import Snapshots
from firkin.errors import FirkinError, InvalidInputError, NotFoundError, StateError
from firkin.types import StateDirs
from firkin.vmm.saved import open_saved
from tests.snapshots.test_snapshots import fill

SIZES = {"ram": 8 << 20}


@pytest.fixture
def dirs(fresh_home: Path) -> StateDirs:
    """A state with the snapshot `a`, whose RAM is mostly holes."""
    dirs = StateDirs.under(fresh_home)
    with Snapshots(dirs).making("a") as folder:
        fill(folder, ram=_sparse)
    return dirs


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        for offset in (0, 4 << 20, 6 << 20):
            file.seek(offset)
            file.write(os.urandom(8192))
        file.truncate(64 << 20)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "verified.json"}


def test_it_comes_back_as_it_was_and_sparse(dirs: StateDirs, tmp_path: Path) -> None:
    archive = tmp_path / "a.firkin"
    written = export_snapshot("a", archive, dirs)
    assert written == archive.stat().st_size < 100_000
    with archive.open("rb") as file:
        import_snapshot(file, "b", dirs)
    one, other = Snapshots(dirs).path("a"), Snapshots(dirs).path("b")
    assert contents(one) == contents(other)
    assert (other / "ram").stat().st_blocks * 512 < 1 << 20
    assert (other / "verified.json").exists()
    # GNU tar reads it too.
    (tmp_path / "out").mkdir()
    with archive.open("rb") as packed, (tmp_path / "plain").open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)
    subprocess.run(["tar", "-xf", tmp_path / "plain", "-C", tmp_path / "out"], check=True)
    assert contents(tmp_path / "out") == contents(one)


def test_through_a_pipe(dirs: StateDirs) -> None:
    out = io.BytesIO()
    export_snapshot("a", out, dirs)
    import_snapshot(io.BytesIO(out.getvalue()), "b", dirs)
    with pytest.raises(StateError, match="a snapshot b already"):
        import_snapshot(io.BytesIO(out.getvalue()), "b", dirs)


def test_what_can_not_be_exported(dirs: StateDirs, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        export_snapshot("absent", tmp_path / "x", dirs)
    (tmp_path / "there").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="already"):
        export_snapshot("a", tmp_path / "there", dirs)
    with (Snapshots(dirs).path("a") / "ram").open("r+b") as ram:
        ram.write(b"altered")
    with pytest.raises(StateError, match="altered"):
        export_snapshot("a", tmp_path / "x", dirs)
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["there"]


Change = Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]


def _named(name: str, **fields: object) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(member, key, value)
        members.append((member, b""))

    return change


def _manifest(key: str, value: object) -> Change:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member, content = members[0]
        document = json.dumps(json.loads(content) | {key: value}).encode()
        member.size = len(document)
        members[0] = (member, document)

    return change


def _flip(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    member, content = members[-1]
    members[-1] = (member, bytes([content[0] ^ 1]) + content[1:])


HOSTILE: dict[str, Change] = {
    "a path that leaves": _named("../../evil"),
    "an absolute path": _named("/tmp/evil"),
    "a link": _named("ram", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": _named("state", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "a device": _named("ram", type=tarfile.CHRTYPE, devmajor=1, devminor=1),
    "a file twice": lambda members: members.append(members[-1]),
    "a file too many": _named("more"),
    "a file missing": lambda members: members.pop(),
    "no manifest first": lambda members: members.reverse(),
    "a manifest of another format": _manifest("format", 99),
    "a manifest with a path": _manifest("files", {"../evil": {"bytes": 0, "sha256": ""}}),
    "a manifest of no files": _manifest("files", {}),
    "a manifest of nonsense": _manifest("files", 7),
    "a size that lies": _manifest("files", {"ram": {"bytes": 1 << 60, "sha256": ""}}),
    "no needs": _manifest("needs", {}),
    "content that was changed": _flip,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_archive_leaves_nothing(dirs: StateDirs, tmp_path: Path, what: str) -> None:
    source = Snapshots(dirs).path("a")
    names = ["manifest.json", *json.loads((source / "manifest.json").read_text())["files"]]
    members = []
    for name in names:
        content = (source / name).read_bytes()
        member = tarfile.TarInfo(name)
        member.size = len(content)
        members.append((member, content))
    HOSTILE[what](members)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(StateError):
        import_snapshot(io.BytesIO(zstandard.compress(plain.getvalue())), "b", dirs)
    assert [path.name for path in Snapshots(dirs).root.iterdir()] == ["a"]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("cut", [0, 1, 100, -20])
def test_a_damaged_archive_is_refused(dirs: StateDirs, cut: int) -> None:
    out = io.BytesIO()
    export_snapshot("a", out, dirs)
    with pytest.raises(FirkinError):
        import_snapshot(io.BytesIO(out.getvalue()[:cut]), "b", dirs)
    with pytest.raises(FirkinError):
        import_snapshot(io.BytesIO(b"no zstd at all" * 100), "b", dirs)
    assert [path.name for path in Snapshots(dirs).root.iterdir()] == ["a"]


SCRIPT = """if True:
    import sys
    from pathlib import Path
    from firkin.core.portable import export_snapshot, import_snapshot
    from firkin.types import StateDirs
    archive = Path(sys.argv[2])
    if sys.argv[1] == "export":
        export_snapshot("a", archive, StateDirs.default())
    else:
        import_snapshot(archive.open("rb"), "b", StateDirs.default())
"""


def _killed(point: str, what: str, archive: Path) -> None:
    environ = os.environ | {"FIRKIN_FAULT": f"{point}=kill"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, what, archive], env=environ, capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_on_the_way(dirs: StateDirs, tmp_path: Path) -> None:
    archive = tmp_path / "out" / "a.firkin"
    archive.parent.mkdir()
    _killed("snapshot.export-half", "export", archive)
    assert list(archive.parent.iterdir()) == []
    export_snapshot("a", archive, dirs)
    _killed("snapshot.import-unpacked", "import", archive)
    assert [info.name for info in Snapshots(dirs)] == ["a"]
    assert [path.name for path in Snapshots(dirs).root.iterdir()] == ["a"]
    with archive.open("rb") as file:
        import_snapshot(file, "b", dirs)
    with open_saved(Snapshots(dirs).path("b"), boot_id="x", what="b") as saved:
        assert saved.epoch == 3
