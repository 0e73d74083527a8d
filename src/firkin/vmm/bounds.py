"""How much of the host one VM may take, all in all: never so little that a healthy one is hurt."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from firkin.vmm.cgroup import Bounds
from firkin.vmm.config import MIB, VmConfig

__all__ = ["LEAST_FILE", "group_bounds", "process_limits"]

# QEMU's own heap and stacks, and those of a virtiofsd.
_OWN_MEMORY = 512 * MIB
# Translated code under TCG: QEMU takes an eighth of the host's memory, at most this (accel/tcg, tcg_init_machine).
_TRANSLATED = 1024 * MIB
# Threads of QEMU (64 for its disks) and of its helpers, beside those of the processors.
_TASKS = 512
# Descriptors: two for each disk, and a QEMU's own.
_DESCRIPTORS = 1024
# Bytes that every QEMU may write into a file. A qcow2 layer is larger than what is written into it: tables, and
# clusters of 64 KiB. Memory that only QEMU can read is written out in pieces of this size.
LEAST_FILE = 64 * MIB


def group_bounds(config: VmConfig, folder: Path, images: Sequence[int]) -> Bounds:
    """Bounds for QEMU and its helpers together. `images`: the sizes of the disks' images in bytes.

    The page cache counts as memory, but is dropped before anything is killed. Files of a tmpfs are not: where the VM's
    `folder` is on one, what the guest may write to its disks is added.
    """
    memory = config.memory + _OWN_MEMORY + _TRANSLATED
    if _is_tmpfs(folder):
        memory += sum(map(_layer_size, images))
    return Bounds(memory, config.cpus + 1, config.cpus + _TASKS)


def process_limits(config: VmConfig, images: Sequence[int], *, alone: bool) -> Mapping[int, int]:
    """Resource limits of QEMU. `alone`: its user has no other process, so that they can be counted.

    No file grows beyond what the largest disk needs: a guest that writes behind the end of its file system, where its
    device seems to have room, gets EIO. QEMU makes a file of the guest's memory where that is shared.
    """
    limits = {
        resource.RLIMIT_FSIZE: max([config.memory if config.shares else 0, *map(_layer_size, [0, *images])]),
        resource.RLIMIT_NOFILE: _DESCRIPTORS,
    }
    if alone:
        limits[resource.RLIMIT_NPROC] = config.cpus + _TASKS
    return limits


def _layer_size(image: int) -> int:
    return image + image // 512 + LEAST_FILE


def _is_tmpfs(folder: Path) -> bool:
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with Path("/proc/self/mountinfo").open() as file:
        return any(line.split(" ", 3)[2] == number and " - tmpfs " in line for line in file)
