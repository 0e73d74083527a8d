"""The modules of the initramfs: closed over their dependencies, each after what it needs."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from firkin.errors import BootError, InvalidInputError
from firkin.vmm.modules import module_closure, read_module

# name: what it needs. As in Debian's kernel, but smaller.
TREE = {
    "virtio": [],
    "virtio_ring": [],
    "virtio_mmio": ["virtio", "virtio_ring"],
    "virtio_blk": ["virtio"],
    "virtio_console": ["virtio", "virtio_ring"],
    "fuse": [],
    "virtiofs": ["fuse", "virtio"],
    "unrelated": ["fuse"],
}


def module(needs: list[str]) -> bytes:
    """What matters of a module: an ELF's magic, and .modinfo strings."""
    return b"\x7fELF....\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


def tree(root: Path, *, dep: bool) -> Path:
    folder = root / "lib/modules/6.1.0"
    for name, needs in TREE.items():
        path = folder / "kernel/drivers" / f"{name.replace('_', '-')}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(module(needs))
    if dep:
        lines = []
        for name in TREE:
            needed: list[str] = []
            pending = list(TREE[name])
            while pending:
                needed.append(pending.pop(0))
                pending += TREE[needed[-1]]
            files = " ".join(f"kernel/drivers/{other.replace('_', '-')}.ko" for other in needed)
            lines.append(f"kernel/drivers/{name.replace('_', '-')}.ko: {files}".rstrip())
        (folder / "modules.dep").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("dep", [True, False], ids=["modules.dep", "depends="])
def test_each_module_comes_after_what_it_needs(tmp_path: Path, dep: bool) -> None:
    names = [path.stem.replace("-", "_") for path in module_closure(tree(tmp_path, dep=dep))]
    assert set(names) == set(TREE) - {"unrelated"}
    for name in names:
        assert all(names.index(needed) < names.index(name) for needed in TREE[name])


def test_what_is_built_in_is_left_out(tmp_path: Path) -> None:
    folder = tree(tmp_path, dep=False)
    (folder / "kernel/drivers/virtio-blk.ko").unlink()
    (folder / "modules.builtin").write_text("kernel/drivers/block/virtio_blk.ko\n")
    assert "virtio-blk.ko" not in [path.name for path in module_closure(folder)]


def test_a_missing_driver_is_named(tmp_path: Path) -> None:
    folder = tree(tmp_path, dep=False)
    (folder / "kernel/drivers/virtio-blk.ko").unlink()
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    with pytest.raises(BootError, match="lack virtio_blk") as caught:
        module_closure(folder)
    assert not caught.value.transient


def test_modules_that_need_each_other_do_not_loop(tmp_path: Path) -> None:
    folder = tree(tmp_path, dep=False)
    (folder / "kernel/drivers/virtio.ko").write_bytes(module(["virtio_ring"]))
    (folder / "kernel/drivers/virtio-ring.ko").write_bytes(module(["virtio"]))
    assert len(module_closure(folder)) == len(TREE) - 1


def test_compressed_modules_are_read(tmp_path: Path) -> None:
    content = module([])
    packed = {
        "a.ko": content,
        "a.ko.xz": lzma.compress(content),
        "a.ko.zst": zstandard.ZstdCompressor().compress(content),
        "a.ko.gz": gzip.compress(content),
    }
    for name, data in packed.items():
        (tmp_path / name).write_bytes(data)
        assert read_module(tmp_path / name) == content


@pytest.mark.parametrize(("name", "data"), [("a.ko.xz", b"nonsense"), ("a.ko", b"nonsense"), ("a.ko.zst", b"")])
def test_a_damaged_module_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InvalidInputError, match=name):
        read_module(tmp_path / name)
