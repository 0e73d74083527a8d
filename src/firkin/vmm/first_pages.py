"""Which pages of its RAM each clone of a saved VM writes while it starts: nearly the same ones in each.

A clone maps the saved RAM privately. The first write to a page that it has read before is an interrupt, and another one
for the other processor, which has to forget what it knew of that page. A lean QEMU is told which pages these will be,
and has them copied all at once as soon as it has mapped the RAM (guest/preload). A list that is wrong costs time only.
"""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.vmm.save import changed_pages
from firkin.vmm.saved import FIRST_PAGES

if TYPE_CHECKING:
    from firkin.vmm.machine import VirtualMachine

__all__ = ["record_first_pages"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
# guest/preload reads no more; a clone that writes so much while it starts gains nothing from a list.
_MAX_RUNS = 4000
_MAX_PAGES = 4096


async def record_first_pages(vm: VirtualMachine, folder: Path) -> None:
    """Write to `folder` which pages `vm` has written, a clone that has just started what clones are to start.

    The file is the size of the RAM in bytes (u64) and runs of pages: the number of the first and how many (each u32),
    little-endian. Raises `OSError`, also where this process may not look at QEMU's, and `VirtualMachineError`.
    """
    runs = [(first // _PAGE, (last - first) // _PAGE) for first, last in await changed_pages(vm)]
    if len(runs) > _MAX_RUNS or sum(count for _, count in runs) > _MAX_PAGES:
        return
    content = struct.pack("<Q", vm.config.memory) + b"".join(struct.pack("<II", *run) for run in runs)
    await asyncio.to_thread((folder / FIRST_PAGES).write_bytes, content)
