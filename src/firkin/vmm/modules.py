"""Which kernel modules the guest loads, and in which order."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from firkin.errors import BootError, InvalidInputError

__all__ = ["GUEST_MODULES", "module_closure", "read_module"]

# What the agent and the containers need: the link, disks, network, overlay and shared folders, AF_VSOCK inside the
# guest, and programs of other architectures. A kernel may have any of them built in.
GUEST_MODULES = (
    "virtio_mmio",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "overlay",
    "fuse",
    "virtiofs",
    "vsock_loopback",
    "binfmt_misc",
)
_REQUIRED = frozenset({"virtio_mmio", "virtio_console", "virtio_blk"})
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_MAX_MODULE = 64 << 20


def module_closure(folder: Path, names: Iterable[str] = GUEST_MODULES) -> list[Path]:
    """The files of `names` and of all they depend on, each after what it needs.

    `folder` is a kernel's `lib/modules/<release>`.     Names that are built in (`modules.builtin`) or that this
    kernel lacks are left out. The dependencies come from `modules.dep` (depmod(8)); a package that was only unpacked
    has none, then from each module's own `depends=`. Raises `BootError` where a module that no guest can do without
    is missing.
    """
    files = _index(folder)
    builtin = {_name(line) for line in _lines(folder / "modules.builtin")}
    listed = _parse_dep(folder, files)
    ordered: dict[str, Path] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in ordered or name in above:
            return
        for needed in listed[name] if name in listed else _depends(files[name]):
            if needed in files:
                add(needed, (*above, name))
        ordered[name] = files[name]

    for name in names:
        if name in files:
            add(name, ())
        elif name in _REQUIRED and builtin and name not in builtin:
            raise BootError(f"the kernel's modules at {folder} lack {name}", hint="use a Debian cloud kernel")
    return list(ordered.values())


def read_module(path: Path) -> bytes:
    """The module's ELF, decompressed. Raises `InvalidInputError` where it is none."""
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            import lzma

            data = lzma.LZMADecompressor().decompress(data, _MAX_MODULE)
        elif path.suffix == ".zst":
            import zstandard

            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        elif path.suffix == ".gz":
            data = zlib.decompressobj(31).decompress(data, _MAX_MODULE)
    except Exception as error:
        raise InvalidInputError(f"{path} is damaged") from error
    if data[:4] != b"\x7fELF":
        raise InvalidInputError(f"{path} is not a kernel module", value=path)
    return data


def _index(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(_SUFFIXES):
                found.setdefault(_name(name), Path(parent, name))
    return found


def _parse_dep(folder: Path, files: Mapping[str, Path]) -> dict[str, list[str]]:
    """`modules.dep`: "path.ko: needed.ko needed.ko", where a module's own needs follow it, nearest first."""
    needs: dict[str, list[str]] = {}
    for line in _lines(folder / "modules.dep"):
        module, colon, rest = line.partition(":")
        if colon and _name(module) in files:
            needs[_name(module)] = [_name(part) for part in reversed(rest.split())]
    return needs


def _depends(path: Path) -> list[str]:
    """The `depends=a,b` of a module's .modinfo section, a list of NUL-terminated key=value strings."""
    data = read_module(path)
    at = data.find(b"\0depends=")
    if at < 0:
        return []
    value = data[at + 9 : data.index(b"\0", at + 9)].decode("ascii", "replace")
    return [_name(part) for part in value.split(",") if part]


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko")[0].strip().replace("-", "_")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return []
