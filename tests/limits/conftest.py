"""The fixtures of the command line's tests, here too."""

from tests.cli.conftest import firkin, start_firkin

__all__ = ["firkin", "start_firkin"]
