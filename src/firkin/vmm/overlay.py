"""Writing an empty qcow2 file: the guest's throw-away layer over an image."""

from __future__ import annotations

import os
import struct

__all__ = ["overlay_bytes", "write_overlay"]

# 64 KiB clusters, QEMU's default: a table of level 2 serves 512 MiB, so one cluster of level 1 serves 4 TiB.
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_PER_L2 = _CLUSTER * (_CLUSTER // 8)


def overlay_bytes(capacity: int) -> list[tuple[int, bytes]]:
    """What to write, as (offset, bytes), for an overlay of `capacity` bytes; what lies between is a hole.

    QEMU, docs/interop/qcow2.txt, version 3: header, refcount table, one refcount block, an empty level 1 table. It
    names no backing file; QEMU is told on its command line, so that no path inside a file is ever followed.
    """
    header_length = 104
    table, block, l1 = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", 3,
        0, 0,  # backing file name
        _CLUSTER_BITS, capacity,
        0,  # encryption
        _ceil(capacity, _PER_L2), l1,
        table, 1,
        0, 0,  # snapshots
        0, 0, 0,  # features
        4,  # refcounts of 2^4 bits
        header_length,
    )  # fmt: skip
    in_use = 3 + _l1_clusters(capacity)
    return [(0, header), (table, struct.pack(">Q", block)), (block, struct.pack(">H", 1) * in_use)]


def write_overlay(fd: int, capacity: int) -> None:
    """Make the empty file at `fd` an overlay of `capacity` bytes (see `overlay_bytes`)."""
    for offset, data in overlay_bytes(capacity):
        os.pwrite(fd, data, offset)
    os.ftruncate(fd, (3 + _l1_clusters(capacity)) * _CLUSTER)


def _l1_clusters(capacity: int) -> int:
    return _ceil(_ceil(capacity, _PER_L2) * 8, _CLUSTER)


def _ceil(number: int, unit: int) -> int:
    return -(-number // unit)
