"""Build a Debian package of a folder in a clean Debian: `python examples/clean_build.py FOLDER` makes FOLDER.deb.

The folder goes in as a tar on standard input and the package comes out on standard output: the build sees its sources
and a fresh Debian, nothing else, and has no network.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import firkin

BUILD = """
mkdir /build; tar -x -C /build
dpkg-deb --root-owner-group --build /build/* /build.deb >&2
cat /build.deb
"""


def build(folder: Path) -> bytes:
    """The package that Debian's own tools make of `folder`. Raises `firkin.FirkinError`."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(folder, folder.name)
    built = firkin.run("debian", ["sh", "-ec", BUILD], input=packed.getvalue(), check=True, network="none")
    return built.stdout


if __name__ == "__main__":
    source = Path(sys.argv[1])
    package = build(source)
    source.with_suffix(".deb").write_bytes(package)
    print(f"{source.name}.deb: {len(package)} bytes, built by Debian 12")
