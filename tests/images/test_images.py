"""The images that tests share are what their fixtures say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from firkin.oci import Image, ImageStore


def test_the_layouts_are_read_by_another_program_too(debian_layout: Path, debian_python_layout: Path) -> None:
    commands = []
    for layout in (debian_layout, debian_python_layout):
        skopeo = ["skopeo", "inspect", "--config", f"oci:{layout}:latest"]
        text = subprocess.run(skopeo, check=True, capture_output=True, text=True).stdout
        commands.append(json.loads(text)["config"]["Cmd"])
    assert commands == [["bash"], ["python3"]]


def test_every_image_is_in_the_shared_store(
    store: ImageStore, busybox_image: Image, debian_image: Image, debian_python_image: Image
) -> None:
    found = [store.resolve(name).digest for name in ("busybox", "localhost/debian", "localhost/debian-python")]
    assert found == [busybox_image.digest, debian_image.digest, debian_python_image.digest]
