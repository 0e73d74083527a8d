"""The embedded default image, `localhost/busybox`, made of the host's own static busybox when it is first needed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from firkin.errors import ImageError
from firkin.oci.config import History, ImageConfig
from firkin.oci.content import ContentStore
from firkin.oci.lease import Lease
from firkin.oci.manifest import Descriptor
from firkin.oci.media_types import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from firkin.oci.references import ReferenceStore
from firkin.types.digest import Digest
from firkin.types.platform import Platform
from firkin.types.reference import Reference

__all__ = ["BUSYBOX", "find_busybox", "is_busybox", "make_busybox", "store_image"]

BUSYBOX = Reference("localhost", "busybox", "latest")

_DIRECTORIES = (
    *("bin", "dev", "etc", "home", "lib", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp"),
    *("usr", "usr/bin", "usr/lib", "usr/local", "usr/local/bin", "usr/local/sbin", "usr/sbin"),
    *("var", "var/lib", "var/log", "var/spool", "var/tmp"),
)
_MODES = {"root": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}
_FILES = {
    "etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
        "bin:x:2:2:bin:/bin:/bin/false\n"
        "www-data:x:33:33:www-data:/var/www:/bin/false\n"
        "nobody:x:65534:65534:nobody:/home:/bin/false\n"
    ),
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\ndaemon:*:::::::\nbin:*:::::::\nwww-data:*:::::::\nnobody:*:::::::\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/resolv.conf": "",
    "etc/hostname": "",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def is_busybox(text: str) -> bool:
    """Whether `text` asks for the embedded image by one of its plain names."""
    return text in ("busybox", "busybox:latest", "localhost/busybox", "localhost/busybox:latest")


def make_busybox(content: ContentStore, names: ReferenceStore, program: Path | None = None) -> None:
    """Assemble the image from `program` (default: the host's busybox) and name it `localhost/busybox:latest`.

    The same program gives the same bytes. Raises `ImageError` where the host has no static busybox.
    """
    layer = _layer(find_busybox(program))
    config = ImageConfig(
        env=(_PATH,),
        cmd=("sh",),
        diff_ids=(Digest.of(layer),),
        history=(History(created_by="the host's busybox, by Firkin"),),
        architecture=Platform.current().architecture,
        variant=Platform.current().variant,
    )
    store_image(content, names, BUSYBOX, config, [Descriptor(OCI_LAYER, Digest.of(layer), len(layer))], [layer])


def store_image(
    content: ContentStore,
    names: ReferenceStore,
    reference: Reference | None,
    config: ImageConfig,
    layers: list[Descriptor],
    blobs: list[bytes],
) -> Descriptor:
    """Write a manifest and its config over `layers`, then name it. `blobs` are further small blobs to put first."""
    encoded = _encode(config.document())
    config_descriptor = Descriptor(OCI_CONFIG, Digest.of(encoded), len(encoded))
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": config_descriptor.document(),
            "layers": [layer.document() for layer in layers],
        }
    )
    target = Descriptor(OCI_MANIFEST, Digest.of(manifest), len(manifest))
    with Lease(content.root) as lease:
        lease.hold(target.digest, config_descriptor.digest, *(layer.digest for layer in layers))
        for blob in (*blobs, encoded, manifest):
            content.put(blob)
        names.set(reference, target)
    return target


def find_busybox(program: Path | None = None) -> Path:
    """The host's static busybox, or `program` if it is one. Raises `ImageError`."""
    options = [program] if program else [Path("/bin/busybox"), Path("/usr/bin/busybox"), shutil.which("busybox")]
    for option in options:
        if option and Path(option).is_file():
            found = Path(option)
            break
    else:
        raise ImageError("the host has no busybox to make the default image of", hint="apt install busybox-static")
    with found.open("rb") as file:
        start = file.read(4096)
    if not _is_static(start):
        raise ImageError(f"{found} is not a static program", hint="apt install busybox-static")
    return found


def _is_static(start: bytes) -> bool:
    """Whether an ELF file names no interpreter (System V ABI, "Program Header": PT_INTERP is 3)."""
    if start[:6] != b"\x7fELF\x02\x01":
        return False
    offset = int.from_bytes(start[32:40], "little")
    size, count = int.from_bytes(start[54:56], "little"), int.from_bytes(start[56:58], "little")
    types = [int.from_bytes(start[offset + n * size :][:4], "little") for n in range(count)]
    return 3 not in types


def _applets(program: Path) -> list[str]:
    try:
        listed = subprocess.run(
            [program, "--list-full"], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=10, env={}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ImageError(f"{program} does not list its applets") from error
    return sorted(set(os.fsdecode(listed.stdout).split()) - {"bin/busybox"})


def _layer(program: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in _DIRECTORIES:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, _MODES.get(name, 0o755)
            archive.addfile(entry)
        for name, text in _FILES.items():
            _add_file(archive, name, text.encode(), 0o640 if name == "etc/shadow" else 0o644)
        _add_file(archive, "bin/busybox", program.read_bytes(), 0o755)
        for name in _applets(program):
            # Hard links: one inode, and no symlink to follow at each exec.
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = tarfile.LNKTYPE, "bin/busybox", 0o755
            archive.addfile(entry)
    return buffer.getvalue()


def _add_file(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _encode(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
