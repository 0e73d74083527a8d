"""The doorway of the command line: finds the command, turns errors into one line and an exit code."""

from __future__ import annotations

import atexit
import errno
import importlib
import itertools
import logging
import os
import re
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import click

from firkin import __version__
from firkin.errors import FirkinError

__all__ = ["OWN_FAILURE", "main", "run"]

OWN_FAILURE = 125
"""Exit code of Firkin's own failures, a bad command line too; as Docker's."""

_HINTS = {
    errno.ENOSPC: "make room; `firkin doctor` says where Firkin keeps what",
    errno.EDQUOT: "make room; `firkin doctor` says where Firkin keeps what",
    errno.EROFS: "set FIRKIN_HOME to a folder that can be written",
}

# name -> module that holds a click command of that name. Imported only when asked for: the hot path imports little.
_COMMANDS = {
    "attach": "firkin.cli.attach",
    "bench": "firkin.cli.bench",
    "completion": "firkin.cli.completion",
    "cp": "firkin.cli.cp",
    "doctor": "firkin.cli.doctor",
    "exec": "firkin.cli.exec",
    "image": "firkin.cli.image",
    "inspect": "firkin.cli.inspect",
    "kill": "firkin.cli.kill",
    "login": "firkin.cli.login",
    "logout": "firkin.cli.logout",
    "logs": "firkin.cli.logs",
    "network": "firkin.cli.network",
    "pause": "firkin.cli.pause",
    "port": "firkin.cli.port",
    "ps": "firkin.cli.ps",
    "pull": "firkin.cli.pull",
    "push": "firkin.cli.push",
    "restore": "firkin.cli.restore",
    "rm": "firkin.cli.rm",
    "run": "firkin.cli.run",
    "setup": "firkin.cli.setup",
    "snapshot": "firkin.cli.snapshot",
    "stats": "firkin.cli.stats",
    "stop": "firkin.cli.stop",
    "unpause": "firkin.cli.unpause",
    "update": "firkin.cli.update",
    "version": "firkin.cli.version",
    "volume": "firkin.cli.volume",
    "wait": "firkin.cli.wait",
}


# Docker's further names of commands of a group; not shown in the help.
_ALIASES = {
    "history": ("image", "history"),
    "images": ("image", "ls"),
    "import": ("image", "import"),
    "load": ("image", "load"),
    "rmi": ("image", "rm"),
    "save": ("image", "save"),
    "tag": ("image", "tag"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ALIASES:
            group, name = _ALIASES[cmd_name]
            above = self.get_command(ctx, group)
            return above.get_command(ctx, name) if isinstance(above, click.Group) else None
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        found: click.Command = importlib.import_module(module).command
        if "_FIRKIN_COMPLETE" in os.environ:
            from firkin.cli._complete import completed

            return completed(found)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and args[0] not in _ALIASES:
            from firkin.cli._words import about_command

            if words := about_command(args[0]):
                ctx.fail(f"there is no command {args[0]!r}: {words}")
        return super().resolve_command(ctx, args)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Log to standard error; twice: everything.")
@click.version_option(__version__, prog_name="firkin")
def cli(verbose: int) -> None:
    """Run each container inside its own micro-VM.

    \b
    firkin run --rm busybox echo hello
    firkin run -it debian bash
    firkin ps
    """
    if verbose:
        level = logging.DEBUG if verbose > 1 else logging.INFO
        logging.basicConfig(
            level=logging.WARNING, format="%(relativeCreated)6.0f ms %(levelname)s %(name)s: %(message)s"
        )
        logging.getLogger("firkin").setLevel(level)
    else:
        logging.basicConfig(level=logging.WARNING, format="firkin: %(message)s")


def _report(error: FirkinError, verbose: bool) -> None:
    click.echo(f"firkin: {error}", err=True)
    if not verbose:
        return
    cause = error.__cause__
    while cause is not None:
        click.echo(f"  because: {type(cause).__name__}: {cause}", err=True)
        cause = cause.__cause__
    if boot_log := getattr(error, "boot_log", ""):
        click.echo(f"  the VM's console ended with:\n{boot_log}", err=True)


def _explained(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        from firkin.cli._words import about_option

        if words := about_option(error.option_name, "" if error.ctx is None else error.ctx.info_name or ""):
            return f"{error.option_name} means nothing here: {words}"
    where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
    return f"{error.format_message()}{where}"


def run(argv: Sequence[str]) -> int:
    """Run the command line `argv` and return the exit code."""
    own = itertools.takewhile(lambda word: word.startswith("-"), argv)
    verbose = any(word == "--verbose" or re.fullmatch("-v+", word) for word in own)
    try:
        code = cli.main(args=list(argv), prog_name="firkin", standalone_mode=False)
    except FirkinError as error:
        _report(error, verbose)
        return int(getattr(error, "exit_code", OWN_FAILURE))
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.UsageError as error:
        click.echo(f"firkin: {_explained(error)}", err=True)
        return OWN_FAILURE
    except click.ClickException as error:
        click.echo(f"firkin: {error.format_message()}", err=True)
        return OWN_FAILURE
    except BrokenPipeError:
        # The reader of our output has gone: nothing can be said to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _report(FirkinError(f"{where}{error.strerror or error}", hint=_HINTS.get(error.errno or 0)), verbose)
        return OWN_FAILURE
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The console script: run the command line, and end the process without taking the interpreter apart.

    That takes 40 ms, and by then everything that a command had is closed: exit handlers and buffers are what is left.
    """
    try:
        code = run(sys.argv[1:])
    except SystemExit as end:  # click's, where a shell asked for completions
        code = end.code if isinstance(end.code, int) else 0
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.current_thread()):
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            code = 141
        except OSError:
            code = OWN_FAILURE
    os._exit(code)
