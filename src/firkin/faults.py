"""Named fault points: places where a test can kill, fail or stall this process.

A fault point costs one dictionary look-up when it is not armed. `FIRKIN_FAULT=name=action` arms one point in a
process; the actions are `kill` (SIGKILL to this process), `raise` (an `OSError` with EIO), `enospc` (an `OSError` with
ENOSPC) and `hang` (sleep until killed). Every point is declared once, at import of the module that owns it, so that a
test can list them all and show that each one was hit.
"""

from __future__ import annotations

import errno
import os
import signal
import time

__all__ = ["declare", "declared", "point"]

_declared: dict[str, str] = {}
_armed: dict[str, str] = dict(
    part.split("=", 1) for part in os.environ.get("FIRKIN_FAULT", "").split(",") if "=" in part
)


def declare(name: str, what: str) -> str:
    """Register the fault point `name` (dotted, `layer.verb.place`) and return it; `what` says what is then half
    done."""
    _declared[name] = what
    return name


def declared() -> dict[str, str]:
    """Every fault point of the modules imported so far, by name, with what is half done there."""
    return dict(_declared)


def point(name: str) -> None:
    """Pass the fault point `name`: nothing, unless it is armed."""
    if not _armed:
        return
    action = _armed.get(name)
    if action is None:
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action in ("raise", "enospc"):
        code = errno.EIO if action == "raise" else errno.ENOSPC
        raise OSError(code, f"fault point {name}")
    while True:
        time.sleep(3600)
