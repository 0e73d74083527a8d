"""The command line. `main` is all of it; each command lives in a module of its own, imported when it is asked for."""

from firkin.cli.main import main

__all__ = ["main"]
