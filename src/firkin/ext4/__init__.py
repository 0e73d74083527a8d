"""ext4 images: written from layers in one pass, and read without mounting."""

from firkin.ext4.limits import Limits
from firkin.ext4.report import ImageReport
from firkin.ext4.writer import DEFAULT_SIZE, Ext4Writer, make_empty, write_image

__all__ = ["DEFAULT_SIZE", "Ext4Writer", "ImageReport", "Limits", "make_empty", "write_image"]
