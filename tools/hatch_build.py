"""The build hook of the wheel: build the guest and the messages first, and name the platform that they are for."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface[Any]):
    """Runs `tools/build_guest.py` before a wheel (also an editable one) is assembled."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, then tag the wheel: any Python 3, this machine, any libc (the programs inside are static)."""
        sys.path.insert(0, str(Path(self.root) / "tools"))
        import build_guest

        build_guest.build(Path(self.root))
        machine = platform.machine()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_17_{machine}.musllinux_1_1_{machine}"
