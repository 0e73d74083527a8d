"""Where vmexec and crun 1.8 differ on purpose. docs/decisions/vmexec.md tells the same to people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Known:
    """A difference: of facts whose name, and both values as text, match. `rows` is matched against the row's name."""

    reason: str
    name: str
    ours: str
    theirs: str
    rows: str = ""

    def covers(self, row: str, name: str, values: tuple[Any, Any]) -> bool:
        """Whether it explains this difference."""
        texts = zip((self.name, self.ours, self.theirs), (name, *map(str, values)), strict=True)
        return bool(re.search(self.rows, row)) and all(re.fullmatch(pattern, text) for pattern, text in texts)


KNOWN = [
    Known(
        "a masked file is the container's own null device, checked to be one; crun binds the host's, read-only",
        r"mount/.*",
        r"/null rw,nosuid \[\] tmpfs .*",
        r"/null ro,relatime \[\] devtmpfs .*",
    ),
    Known(
        "a masked folder is a file system that is read-only itself; crun's is a read-only mount of a writable one",
        r"mount/.*",
        r"/ ro,relatime \[\] tmpfs tmpfs ro,inode64",
        r"/ ro,relatime \[\] tmpfs tmpfs rw,size=0k,inode64",
    ),
    Known(
        "a read-only path keeps nosuid, nodev and noexec of the mount that it is in; crun's loses them",
        r"mount/.*",
        r"(/\S+) ro,nosuid,nodev,noexec,relatime \[\] proc proc rw",
        r"(/\S+) ro,relatime \[\] proc proc rw",
    ),
]
