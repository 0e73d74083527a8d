"""Kernels out of Debian packages: what is unpacked, what is refused, what a crash leaves."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from firkin.errors import InvalidInputError
from firkin.types import StateDirs
from firkin.vmm.kernel import find_kernel
from firkin.vmm.kernel_package import keep_file, kernel_folder, unpack_package

RELEASE = "6.1.0-1-cloud-amd64"
KERNEL = b"\x7fELF kernel"
FILES = {
    f"./boot/vmlinuz-{RELEASE}": KERNEL,
    f"./lib/modules/{RELEASE}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
    f"./lib/modules/{RELEASE}/kernel/virtio_mmio.ko": b"\x7fELF module",
    "./usr/share/doc/linux-image/copyright": b"GPL",
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def tar(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return out.getvalue()


def package(path: Path, data: bytes, ending: str = ".xz") -> Path:
    """A package as deb(5) has it, with the data member last."""
    whole = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (f"data.tar{ending}", data)):
        whole += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        whole += content + b"\n" * (len(content) % 2)
    path.write_bytes(whole)
    return path


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    return StateDirs.under(tmp_path / "home")


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("usr", [False, True], ids=["lib", "usr-lib"])
def test_the_kernel_and_its_modules_are_unpacked(tmp_path: Path, dirs: StateDirs, ending: str, usr: bool) -> None:
    files = {name.replace("./lib/", "./usr/lib/") if usr else name: content for name, content in FILES.items()}
    folder = unpack_package(package(tmp_path / "a.deb", PACKERS[ending](tar(files)), ending), dirs)
    assert folder == kernel_folder(dirs) / RELEASE
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {name[2:] for name in FILES if not name.startswith("./usr")}
    assert find_kernel(dirs, {}).path.read_bytes() == KERNEL


def test_a_newer_one_of_the_same_release_takes_its_place(tmp_path: Path, dirs: StateDirs) -> None:
    for content in (KERNEL, KERNEL + b" 2"):
        data = lzma.compress(tar({**FILES, f"./boot/vmlinuz-{RELEASE}": content}))
        unpack_package(package(tmp_path / "a.deb", data), dirs)
    assert find_kernel(dirs, {}).path.read_bytes() == KERNEL + b" 2"


def test_nothing_leads_out_of_the_folder(tmp_path: Path, dirs: StateDirs) -> None:
    link = tarfile.TarInfo("./lib/modules/out")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    files = {**FILES, "./lib/modules/../../../escaped": b"", "/lib/modules/absolute": b"", "./lib/modules/out/x": b""}
    folder = unpack_package(package(tmp_path / "a.deb", tar(files, link), ""), dirs)
    assert not list(tmp_path.rglob("escaped"))
    assert (folder / "lib/modules/absolute").is_file()
    assert (folder / "lib/modules/out/x").is_file()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing", "is not a Debian package"),
        (b"!<arch>\n" + b"x" * 60, "is damaged"),
        (b"!<arch>\n", "is damaged"),
    ],
)
def test_what_is_no_package_is_refused(tmp_path: Path, dirs: StateDirs, content: bytes, said: str) -> None:
    (tmp_path / "a.deb").write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        unpack_package(tmp_path / "a.deb", dirs)
    assert list(kernel_folder(dirs).iterdir()) == []


def test_a_package_without_a_kernel_or_cut_off_is_refused(tmp_path: Path, dirs: StateDirs) -> None:
    with pytest.raises(InvalidInputError, match="no kernel in"):
        unpack_package(package(tmp_path / "a.deb", tar({"./usr/bin/x": b""}), ""), dirs)
    with pytest.raises(InvalidInputError, match="damaged"):
        unpack_package(package(tmp_path / "a.deb", lzma.compress(tar(FILES))[:-40]), dirs)
    with pytest.raises(InvalidInputError, match="can't unpack"):
        unpack_package(tmp_path / "missing.deb", dirs)


def test_a_file_is_kept_with_its_modules(tmp_path: Path, dirs: StateDirs) -> None:
    kernel, modules = tmp_path / "vmlinuz-7.0", tmp_path / "modules/7.0"
    kernel.write_bytes(KERNEL)
    (modules / "kernel").mkdir(parents=True)
    (modules / "build").symlink_to("/usr/src")
    folder = keep_file(kernel, modules, dirs)
    assert (folder / "boot/vmlinuz-7.0").read_bytes() == KERNEL
    assert [path.name for path in (folder / "lib/modules/7.0").iterdir()] == ["kernel"]
    assert keep_file(kernel, None, dirs).name == "7.0"
    with pytest.raises(InvalidInputError, match="neither a bzImage nor an ELF"):
        keep_file(Path("/etc/passwd"), None, dirs)


def test_a_kill_before_the_kernel_has_its_name_leaves_none(tmp_path: Path, dirs: StateDirs) -> None:
    """Fault point "kernel.before-publish"."""
    deb = package(tmp_path / "a.deb", lzma.compress(tar(FILES)))
    script = "import sys, pathlib\nfrom firkin.types import StateDirs\nfrom firkin.vmm.kernel_package import *\n"
    script += "unpack_package(pathlib.Path(sys.argv[1]), StateDirs.under(pathlib.Path(sys.argv[2])))"
    environ = {**os.environ, "FIRKIN_FAULT": "kernel.before-publish=kill"}
    command = [sys.executable, "-c", script, str(deb), str(tmp_path / "home")]
    assert subprocess.run(command, env=environ).returncode == -9
    assert [path.name for path in kernel_folder(dirs).iterdir()] == [".new"]
    # Another system's kernel may be found, this half of one is not.
    assert ".new" not in str(find_kernel(dirs, {"FIRKIN_KERNEL_DIR": str(unpack_package(deb, dirs).parent)}).path)
    assert [path.name for path in kernel_folder(dirs).iterdir()] == [RELEASE]
