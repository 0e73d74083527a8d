"""Firkin: each OCI container inside its own micro-VM, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firkin.core.blocking import Container, Pipe, Process, run
    from firkin.core.container import AsyncContainer
    from firkin.core.exit import CompletedProcess, ExitStatus
    from firkin.core.process import AsyncProcess
    from firkin.core.run import run_async
    from firkin.core.volumes import Volume
    from firkin.errors import FirkinError
    from firkin.types import PtySize, Size, StateDirs, Stdio

__version__ = "0.1.0"

# name -> module. Imported at first use: `import firkin` and small commands stay fast.
_PUBLIC = {
    "AsyncContainer": "firkin.core.container",
    "AsyncProcess": "firkin.core.process",
    "CompletedProcess": "firkin.core.exit",
    "Container": "firkin.core.blocking",
    "ExitStatus": "firkin.core.exit",
    "FirkinError": "firkin.errors",
    "Pipe": "firkin.core.blocking",
    "Process": "firkin.core.blocking",
    "PtySize": "firkin.types",
    "Size": "firkin.types",
    "StateDirs": "firkin.types",
    "Stdio": "firkin.types",
    "Volume": "firkin.core.volumes",
    "run": "firkin.core.blocking",
    "run_async": "firkin.core.run",
}

__all__ = [
    "AsyncContainer",
    "AsyncProcess",
    "CompletedProcess",
    "Container",
    "ExitStatus",
    "FirkinError",
    "Pipe",
    "Process",
    "PtySize",
    "Size",
    "StateDirs",
    "Stdio",
    "Volume",
    "__version__",
    "run",
    "run_async",
]


def __getattr__(name: str) -> Any:
    import importlib

    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'firkin' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)
