"""Generated stacks of layers give the tree that a simple model gives, or are refused where it refuses them."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firkin.errors import ImageError
from firkin.ext4 import write_image
from tests.ext4 import tars
from tests.ext4.model import Change, RefusedError, apply_layers, listing
from tests.ext4.snapshots import fsck, of_image

SIZE = 32 << 20
NAMES = st.sampled_from(["a", "b", "c", "d"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TARGETS = st.one_of(
    PATHS,
    PATHS.map(lambda path: f"/{path}"),
    st.lists(st.sampled_from(["a", "b", "..", "."]), min_size=1, max_size=4).map("/".join),
)
COMMON = {"mode": st.sampled_from([0o755, 0o600, 0o4711]), "uid": st.integers(0, 3), "mtime": st.integers(0, 5)}
CHANGES = st.one_of(
    st.builds(Change, st.just("dir"), PATHS, **COMMON),
    st.builds(Change, st.just("file"), PATHS, text=st.sampled_from(["", "x", "y" * 5000, "z" * 70_000]), **COMMON),
    st.builds(Change, st.just("symlink"), PATHS, text=TARGETS, **COMMON),
    st.builds(Change, st.just("hardlink"), PATHS, text=PATHS),
    st.builds(Change, st.just("fifo"), PATHS, **COMMON),
    st.builds(Change, st.just("whiteout"), PATHS),
    st.builds(Change, st.just("opaque"), PATHS),
)
STACKS = st.lists(st.lists(CHANGES, max_size=8), min_size=1, max_size=4)
TYPES = {
    "dir": tarfile.DIRTYPE,
    "file": tarfile.REGTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def member(change: Change) -> tars.Entry:
    if change.kind == "whiteout":
        return tars.whiteout(change.path)
    if change.kind == "opaque":
        return tars.opaque(change.path)
    content = change.text.encode() if change.kind == "file" else b""
    target = change.text if change.kind in ("symlink", "hardlink") else ""
    fields = {"mode": change.mode, "uid": change.uid, "mtime": change.mtime, "linkname": target}
    return tars.entry(change.path, TYPES[change.kind], content, **fields)


def check(layers: list[list[Change]]) -> None:
    streams = [io.BytesIO(tars.tar(map(member, layer))) for layer in layers]
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "image"
        try:
            expected = listing(apply_layers(layers))
        except RefusedError:
            with pytest.raises(ImageError):
                write_image(streams, image, size=SIZE)
            return
        write_image(streams, image, size=SIZE)
        fsck(image)
        found = of_image(image)
    assert found.keys() == expected.keys()
    names: dict[int, list[str]] = {}
    for path, (node, _) in expected.items():
        names.setdefault(id(node), []).append(path)
    for path, (node, text) in expected.items():
        content = hashlib.sha256(text.encode()).hexdigest() if stat.S_ISREG(node.mode) else text
        wanted = (node.mode, node.uid, node.mtime * 10**9, tuple(sorted(names[id(node)])), content)
        file = found[path]
        assert (file.mode, file.uid, file.mtime_ns, file.names, file.content) == wanted, path


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(STACKS)
def test_stacks(layers: list[list[Change]]) -> None:
    check(layers)


@pytest.mark.soak
@settings(max_examples=5000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(STACKS)
def test_many_stacks(layers: list[list[Change]]) -> None:
    check(layers)
