"""Firkin: each OCI container inside its own micro-VM, from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from firkin.lazy import attributes

if TYPE_CHECKING:
    from firkin import errors, types
    from firkin.core.blocking import Container, Pipe, Process, run
    from firkin.core.blocking_pool import WarmPool, warm_image
    from firkin.core.container import AsyncContainer
    from firkin.core.exit import CompletedProcess, ExitStatus
    from firkin.core.pool import AsyncWarmPool
    from firkin.core.process import AsyncProcess
    from firkin.core.run import run_async
    from firkin.core.stats import Stats
    from firkin.core.volumes import Volume
    from firkin.core.warm import warm_image_async
    from firkin.errors import FirkinError
    from firkin.oci import Image, ImageStore
    from firkin.types import PtySize, Size, StateDirs, Stdio

__version__ = "0.1.0"

__all__ = [
    "AsyncContainer",
    "AsyncProcess",
    "AsyncWarmPool",
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
    "WarmPool",
    "__version__",
    "errors",
    "run",
    "run_async",
    "types",
    "warm_image",
    "warm_image_async",
]


# Imported at first use: `import firkin` and small commands stay fast.
__getattr__ = attributes(
    __name__,
    {
        "AsyncContainer": "core.container",
        "AsyncProcess": "core.process",
        "AsyncWarmPool": "core.pool",
        "CompletedProcess": "core.exit",
        "Container": "core.blocking",
        "ExitStatus": "core.exit",
        "FirkinError": "errors",
        "Image": "oci",
        "ImageStore": "oci",
        "Pipe": "core.blocking",
        "Process": "core.blocking",
        "PtySize": "types",
        "Size": "types",
        "StateDirs": "types",
        "Stats": "core.stats",
        "Stdio": "types",
        "Volume": "core.volumes",
        "WarmPool": "core.blocking_pool",
        "errors": "errors",
        "run": "core.blocking",
        "run_async": "core.run",
        "types": "types",
        "warm_image": "core.blocking_pool",
        "warm_image_async": "core.warm",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
