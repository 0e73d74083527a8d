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
        return bool(re.search(self.rows, row)) and all(
            re.fullmatch(pattern, text, re.DOTALL) for pattern, text in texts
        )


KNOWN = [
    Known(
        "a masked file is the container's own null device, checked to be one; crun binds the host's, read-only",
        r"mount/.*",
        r"/null rw(,nosuid)?(,relatime)? \[\w*\] tmpfs .*",
        r"/null ro,relatime \[\w*\] devtmpfs .*",
    ),
    Known(
        "a masked folder is a file system that is read-only itself; crun's is a read-only mount of a writable one",
        r"mount/.*",
        r"/ ro,relatime \[\w*\] tmpfs tmpfs ro,inode64",
        r"/ ro,relatime \[\w*\] tmpfs tmpfs rw,size=0k,inode64",
    ),
    Known(
        "a read-only path keeps nosuid, nodev and noexec of the mount that it is in; crun's loses them",
        r"mount/.*",
        r"/\S+ ro,nosuid,nodev,noexec,relatime \[\w*\] proc proc rw",
        r"/\S+ ro,relatime \[\w*\] proc proc rw",
    ),
    Known(
        "/dev/console keeps nosuid and noexec of the devpts that it is of; crun's loses them",
        r"mount//dev/console",
        r"/0 rw,nosuid,noexec,relatime \[\] devpts .*",
        r"/0 rw,relatime \[\] devpts .*",
    ),
    Known(
        "crun gives the null device to the user, since it was standard input",
        r"dev/null",
        r"20666 0:0 1:3 ",
        r"20666 \d+:\d+ 1:3 ",
    ),
    Known(
        "a user that is not in passwd has HOME=/, as in Docker; crun sets none",
        r"env",
        r"\[.*, 'HOME=/'\]",
        r"\['PATH=[^']*'\]",
    ),
    Known(
        "without a cgroupsPath the process stays where it is; crun makes a cgroup of the container's name",
        r"cgroup",
        r"0::/\n",
        r"0::/t\n",
        rows="^without cgroup namespace",
    ),
    Known(
        "ro on the sysfs of a new network makes the file system read-only; crun's is only a read-only mount",
        r"mount//sys",
        r"(.*) sysfs sysfs ro",
        r"(.*) sysfs sysfs rw",
        rows="network",
    ),
    Known(
        "crun sets the propagation of a mount and then the root's over it: what was asked for is lost",
        r"mount//mnt.*",
        r".* \[(shared|unbindable)\] .*",
        r".* \[\] .*",
        rows="shared|unbindable",
    ),
    Known(
        "the later of nosuid and suid wins; crun can't take nosuid back",
        r"mount//mnt",
        r"/ rw,relatime .*",
        r"/ rw,nosuid,relatime .*",
        rows="nosuid suid",
    ),
    Known(
        "a mount point that is made has mode 0755; crun's is sticky",
        r"stat:/mnt/a|root/b",
        r"40755 .*",
        r"41755 .*",
        rows="^mount point",
    ),
    Known(
        "a folder that the path to a mount point leaves again by .. is not made; crun makes it",
        r"root/a",
        r"None",
        r"41755 .*",
        rows="^mount point with dots",
    ),
    Known(
        "tmpcopyup gives the tmpfs the mode of the folder that it covers; crun leaves 01777",
        r"root/etc",
        r"40755 .*",
        r"41777 .*",
        rows="^tmpcopyup",
    ),
    Known(
        "remount,ro of a file system makes it read-only; crun's is only a read-only mount",
        r"mount//mnt",
        r".* tmpfs ro,size=8k,inode64",
        r".* tmpfs rw,size=8k,inode64",
        rows="^remount",
    ),
    Known(
        "a mount's source is what the specification says; crun says cgroup2",
        r"mount//sys/fs/cgroup",
        r"(.*) cgroup2 cgroup rw",
        r"(.*) cgroup2 cgroup2 rw",
    ),
    Known(
        "an exec leads a session of its own, as runc's does: signals of the first process's group do not reach it",
        r"leads (group|session)|status/NS[ps]?g?s?id",
        r"1|2",
        r"0|1",
        rows="^exec",
    ),
]
