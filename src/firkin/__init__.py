"""Firkin: each OCI container inside its own micro-VM, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin import errors, types
    from firkin.core.blocking import Container, Pipe, Process, run
    from firkin.core.container import AsyncContainer
    from firkin.core.exit import CompletedProcess, ExitStatus
    from firkin.core.process import AsyncProcess
    from firkin.core.run import run_async
    from firkin.core.stats import Stats
    from firkin.core.volumes import Volume
    from firkin.errors import FirkinError
    from firkin.oci import Image, ImageStore
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
    "Image": "firkin.oci",
    "ImageStore": "firkin.oci",
    "Pipe": "firkin.core.blocking",
    "Process": "firkin.core.blocking",
    "PtySize": "firkin.types",
    "Size": "firkin.types",
    "StateDirs": "firkin.types",
    "Stats": "firkin.core.stats",
    "Stdio": "firkin.types",
    "Volume": "firkin.core.volumes",
    "run": "firkin.core.blocking",
    "run_async": "firkin.core.run",
}

_MODULES = ("errors", "types")

__all__ = [
    "AsyncContainer",
    "AsyncProcess",
    "CompletedProcess",
    "Container",
    "ExitStatus",
    "FirkinError",
    "Image",
    "ImageStore",
    "Pipe",
    "Process",
    "PtySize",
    "Size",
    "StateDirs",
    "Stats",
    "Stdio",
    "Volume",
    "__version__",
    "errors",
    "run",
    "run_async",
    "types",
]


# Imported at first use: `import firkin` and small commands stay fast.
__getattr__ = attributes(
    __name__,
    {
        "AsyncContainer": "core.container",
        "AsyncProcess": "core.process",
        "CompletedProcess": "core.exit",
        "Container": "core.blocking",
        "ExitStatus": "core.exit",
        "FirkinError": "errors",
        "Pipe": "core.blocking",
        "Process": "core.blocking",
        "PtySize": "types",
        "Size": "types",
        "StateDirs": "types",
        "Stdio": "types",
        "Volume": "core.volumes",
        "run": "core.blocking",
        "run_async": "core.run",
    },
)
def __getattr__(name: str) -> Any:
    import importlib

    if name in _MODULES:
        return importlib.import_module(f"firkin.{name}")
    module = _PUBLIC.get(name)
    if module is None:
        raise AttributeError(f"module 'firkin' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
