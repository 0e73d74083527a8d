"""Writing qcow2 metadata: a throw-away layer over an image, or a window onto an image that the guest writes."""

from __future__ import annotations

import os
import struct

__all__ = ["write_overlay", "write_window"]

# An overlay has 64 KiB clusters, QEMU's default. A window only maps: 2 MiB, the largest, keep its table small.
_OVERLAY_BITS = 16
_WINDOW_BITS = 21
_EXTERNAL_DATA = 1 << 2
_RAW_DATA = 1 << 1
_COPIED = 1 << 63


def write_overlay(fd: int, capacity: int) -> None:
    """Make the empty file at `fd` an overlay of `capacity` bytes in which nothing is written yet.

    It names no backing file: QEMU is told on its command line, so that no path inside a file is ever followed.
    """
    clusters = 3 + _l1_clusters(capacity, _OVERLAY_BITS)
    for offset, data in _metadata(capacity, _OVERLAY_BITS, clusters, 0, 0):
        os.pwrite(fd, data, offset)
    os.ftruncate(fd, clusters << _OVERLAY_BITS)


def write_window(fd: int, capacity: int, size: int) -> None:
    """Make the empty file at `fd` the metadata of a disk of `capacity` bytes whose data is a raw image of `size` bytes.

    Every byte of the guest's disk is at its own offset in the image (an "external data file", raw).
    """
    bits = _WINDOW_BITS
    cluster = 1 << bits
    l1 = 3 + _l1_clusters(capacity, bits)
    l2_tables = _ceil(_ceil(size, cluster), cluster // 8)
    clusters = l1 + l2_tables
    for offset, data in _metadata(capacity, bits, clusters, _EXTERNAL_DATA, _RAW_DATA):
        os.pwrite(fd, data, offset)
    pointers = [(l1 + table) * cluster | _COPIED for table in range(l2_tables)]
    os.pwrite(fd, struct.pack(f">{len(pointers)}Q", *pointers), 3 * cluster)
    entries = [index * cluster | _COPIED for index in range(_ceil(size, cluster))]
    os.pwrite(fd, struct.pack(f">{len(entries)}Q", *entries), l1 * cluster)
    os.ftruncate(fd, clusters * cluster)


def _metadata(capacity: int, bits: int, clusters: int, incompatible: int, autoclear: int) -> list[tuple[int, bytes]]:
    """What to write, as (offset, bytes): header, refcount table, one refcount block; the level 1 table is cluster 3.

    QEMU, docs/interop/qcow2.txt, version 3.
    """
    cluster = 1 << bits
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb", 3,
        0, 0,  # backing file name
        bits, capacity,
        0,  # encryption
        _ceil(capacity, cluster * (cluster // 8)), 3 * cluster,
        cluster, 1,
        0, 0,  # snapshots
        incompatible, 0, autoclear,
        4,  # refcounts of 2^4 bits
        104,  # the header's length
    )  # fmt: skip
    refcounts = struct.pack(">H", 1) * clusters
    return [(0, header), (cluster, struct.pack(">Q", 2 * cluster)), (2 * cluster, refcounts)]


def _l1_clusters(capacity: int, bits: int) -> int:
    cluster = 1 << bits
    return _ceil(_ceil(capacity, cluster * (cluster // 8)) * 8, cluster)


def _ceil(number: int, unit: int) -> int:
    return -(-number // unit)
