"""Whether an image was left by a power cut: its journal holds what its tables do not yet say."""

from __future__ import annotations

import struct
from pathlib import Path

__all__ = ["needs_recovery"]

# struct ext4_super_block, at byte 1024: s_magic at 0x38, s_feature_incompat at 0x60.
_SUPER = 1024
_MAGIC = 0xEF53
_INCOMPAT_RECOVER = 0x4


def needs_recovery(path: Path) -> bool:
    """True for an ext4 image whose journal must be replayed, which takes writing, before it can be read."""
    with path.open("rb") as file:
        file.seek(_SUPER)
        block = file.read(0x64)
    if len(block) < 0x64 or struct.unpack_from("<H", block, 0x38)[0] != _MAGIC:
        return False
    return bool(struct.unpack_from("<I", block, 0x60)[0] & _INCOMPAT_RECOVER)
