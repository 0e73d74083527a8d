"""ext4 images: written from layers in one pass, and read without mounting."""

from firkin.ext4._extract import ExtractReport
from firkin.ext4.limits import Limits
from firkin.ext4.reader import FileStat, ImageReader
from firkin.ext4.recovery import needs_recovery
from firkin.ext4.report import ImageReport
from firkin.ext4.writer import DEFAULT_SIZE, Ext4Writer, make_empty, write_image

__all__ = [
    "DEFAULT_SIZE",
    "Ext4Writer",
    "ExtractReport",
    "FileStat",
    "ImageReader",
    "ImageReport",
    "Limits",
    "make_empty",
    "needs_recovery",
    "write_image",
]
