"""The command line. `main` is the console script; each command lives in a module of its own, imported when it is
asked for."""

from firkin.cli.main import main

__all__ = ["main"]
