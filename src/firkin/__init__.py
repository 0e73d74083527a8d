"""Firkin: each OCI container inside its own micro-VM, from Python."""

__version__ = "0.1.0"
__all__ = ["__version__"]
