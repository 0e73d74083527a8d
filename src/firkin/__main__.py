"""The console script, and `python -m firkin`."""

from __future__ import annotations

import signal
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line.

    Until it is imported there is nothing to undo: Ctrl-C ends the process as any program's, without a traceback.
    """
    own = signal.getsignal(signal.SIGINT)
    if own is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from firkin.cli import main as command_line

    if own is signal.default_int_handler:
        signal.signal(signal.SIGINT, own)
    command_line()


if __name__ == "__main__":
    main()
