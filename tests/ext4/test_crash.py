"""A conversion that is killed, or that the disk stops, leaves nothing that passes for an image."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.errors import ImageError
from firkin.ext4 import ImageReader, Limits, write_image
from firkin.ext4._blocks import BlockWriter
from tests.ext4.tars import entry, tar

CONVERT = """
import sys
from pathlib import Path
from firkin.errors import ImageError
from firkin.ext4 import write_image
try:
    with open(sys.argv[1], "rb") as layer:
        write_image([layer], Path(sys.argv[2]), size=64 << 20)
except ImageError as error:
    sys.exit(str(error))
"""

POINT = "ext4.finish.superblock"


@pytest.mark.parametrize("action", ["kill", "raise", "enospc"])
def test_fault_before_the_superblock(tmp_path: Path, action: str) -> None:
    layer, image = tmp_path / "layer", tmp_path / "image"
    layer.write_bytes(tar([entry("f", content=b"f" * 10_000)]))
    command = [sys.executable, "-c", CONVERT, layer, image]
    environment = {**os.environ, "FIRKIN_FAULT": f"{POINT}={action}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == (-signal.SIGKILL if action == "kill" else 1)
    assert action == "kill" or done.stderr.startswith("can't finish the image: ")
    with pytest.raises(ImageError, match="not an ext4 image"):
        ImageReader(image)
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    with ImageReader(image) as reader:
        assert reader.read("/f") == b"f" * 10_000


@pytest.mark.parametrize("size", [300_000, 3000])
def test_full_disk(size: int) -> None:
    """ENOSPC from the host is one line, as every error."""
    with Path("/dev/full").open("wb", buffering=0) as full:
        blocks = BlockWriter(full.fileno(), 1, 1000, Limits())
        with pytest.raises(ImageError, match="can't write the image: No space left on device"):
            blocks.write_at(blocks.append(bytes(size)), bytes(size))


def test_unwritable_destination(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="can't write the image"):
        write_image([], tmp_path / "missing" / "image")


def test_errors_of_a_stream_pass_through(tmp_path: Path) -> None:
    class Broken(io.RawIOBase):
        def readinto(self, target: object) -> int:
            raise ConnectionResetError("the registry went away")

    with pytest.raises(ConnectionResetError):
        write_image([Broken()], tmp_path / "image")
