"""What a conversion did."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ImageReport"]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One finished image.

    `inodes` counts files and directories (a file with several names once), `blocks_used` the blocks of 4096 bytes in
    use, `bytes_read` the bytes of the layers, `bytes_written` those written to the host's file, `size` the image's
    virtual size.
    """

    layers: int
    inodes: int
    blocks_used: int
    bytes_read: int
    bytes_written: int
    size: int
    uuid: str
