"""`firkin setup`'s ways to a kernel, with a stand-in for apt."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from firkin.core.setup import get_kernel
from firkin.errors import BootError, InvalidInputError
from firkin.types import Platform, StateDirs
from tests.vmm.test_kernel_package import FILES, KERNEL, RELEASE, package, tar

META = f"linux-image-cloud-{Platform.current().architecture}"
# Knows a package once it was updated; "downloads" the one beside it.
APT = f"""#!/bin/sh
here=$(dirname "$0")
echo "$(basename "$0") $*" >> "$here/log"
case "$*" in
  *update*) touch "$here/updated" ;;
  *depends*) [ ! -e "$here/updated" ] || echo "{META}
  Depends: linux-image-{RELEASE}" ;;
  *download*) [ -e "$here/a.deb" ] || {{ echo "E: no route" >&2; exit 100; }}; cp "$here/a.deb" . ;;
esac
"""


@pytest.fixture
def dirs(tmp_path: Path) -> StateDirs:
    return StateDirs.under(tmp_path / "home")


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `apt-get` and `apt-cache`, in front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        (folder / name).write_text(APT)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_apts_package_is_fetched_and_unpacked(dirs: StateDirs, apt: Path) -> None:
    package(apt / "a.deb", lzma.compress(tar(FILES)))
    (apt / "updated").touch()
    said: list[str] = []
    kernel = get_kernel(dirs, said.append, fetch=True)
    assert kernel.path.read_bytes() == KERNEL
    assert kernel.modules is not None
    assert (kernel.modules / "modules.builtin").is_file()
    assert said[0] == f"downloading linux-image-{RELEASE}"
    assert "update" not in (apt / "log").read_text()
    assert get_kernel(dirs, said.append).path == kernel.path, "what is here is not fetched again"
    assert len((apt / "log").read_text().splitlines()) == 2


def test_a_failed_download_says_why_and_what_to_do(dirs: StateDirs, apt: Path) -> None:
    (apt / "updated").touch()
    with pytest.raises(BootError, match=r"can't download .*: E: no route \(.*firkin setup --kernel FILE.deb\)"):
        get_kernel(dirs, lambda _: None, fetch=True)
    assert not list((dirs.cache / "assets").glob("kernel/*"))


def test_without_apt_it_says_how_to_go_on(dirs: StateDirs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(BootError, match=rf"no apt to fetch one \(download {META}'s package"):
        get_kernel(dirs, lambda _: None, fetch=True)


def test_a_file_is_taken_as_it_is_asked_for(dirs: StateDirs, tmp_path: Path) -> None:
    deb = package(tmp_path / "a.deb", lzma.compress(tar(FILES)))
    assert get_kernel(dirs, lambda _: None, file=deb).path.name == f"vmlinuz-{RELEASE}"
    bare = tmp_path / "vmlinuz-9"
    bare.write_bytes(KERNEL)
    assert get_kernel(dirs, lambda _: None, file=bare).path.parent.parent.name == "9"
    with pytest.raises(InvalidInputError, match="no file"):
        get_kernel(dirs, lambda _: None, file=tmp_path / "missing")
