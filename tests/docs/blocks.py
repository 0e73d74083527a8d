"""The fenced blocks of a page, and the script that runs them as a reader would: one shell a page, from top to bottom.

* `sh`: commands, of which none may fail.
* `console`: a command a line that begins with `$ ` (`> ` goes on with it); the lines below are what it prints, where
  `...` stands for anything. Only a command that is shown to print an error of Firkin's, or whose code the
  next line asks for by `echo $?`, may fail.
* `python`: a program of its own.
* `text` right behind a `sh` or `python` block: what that block prints.
* `file=NAME` behind the language: the block is the content of that file, for the blocks that follow.
* `# not run: why` as the first line: neither run nor checked; a test lists them all.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "Step", "agrees", "blocks", "left_out", "steps", "write_script"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_FENCE = re.compile(r"^```+(.*)$")
_NOT_RUN = re.compile(r"# not run: (.+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is that of its fence, `info` what stands behind the language."""

    line: int
    language: str
    info: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that this block is the content of."""
        found = re.search(r"\bfile=(\S+)", self.info)
        return found[1] if found else None

    @property
    def not_run(self) -> str | None:
        """Why the block is not run, if it says so."""
        found = _NOT_RUN.match(self.text)
        return found[1] if found else None


@dataclass(frozen=True)
class Step:
    """One thing to run: shell text, and what it should print, `None` where the page does not say."""

    line: int
    shell: str
    prints: str | None = None
    strict: bool = False


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page."""
    inside: list[str] | None = None
    opened, begin = "", 0
    for number, line in enumerate(page.splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is None:
            if fence:
                inside, opened, begin = [], fence[1].strip(), number
        elif fence and not fence[1]:
            language, _, info = opened.partition(" ")
            yield Block(begin, language, info.strip(), "\n".join(inside) + "\n")
            inside = None
        else:
            inside.append(line)


def steps(page: str) -> Iterator[Step]:
    """What of a page is run, in its order."""
    found = list(blocks(page))
    for block, following in itertools.zip_longest(found, found[1:]):
        if block.not_run:
            continue
        output = following.text if following is not None and _belongs(page, block, following) else None
        if block.file:
            where = shlex.quote(block.file)
            write = f"mkdir -p $(dirname {where}); cat > {where} <<'END OF FILE'\n{block.text}END OF FILE\n"
            yield Step(block.line, write)
        elif block.language == "sh":
            yield Step(block.line, block.text, output, strict=True)
        elif block.language == "python":
            program = f"python - <<'END OF PROGRAM'\n{block.text}END OF PROGRAM\n"
            yield Step(block.line, program, output, strict=True)
        elif block.language == "console":
            yield from _session(block)


def _belongs(page: str, block: Block, following: Block) -> bool:
    """Whether `following` is the output of `block`: `text`, with nothing but empty lines between."""
    between = page.splitlines()[block.line + block.text.count("\n") + 1 : following.line - 1]
    return following.language == "text" and not "".join(between).strip()


def _session(block: Block) -> Iterator[Step]:
    command, output, begin = "", "", block.line
    for number, line in enumerate([*block.text.splitlines(), "$ "], block.line + 1):
        if line.startswith("$ "):
            if command:
                may_fail = output.startswith("firkin: ") or line.startswith("$ echo $?")
                yield Step(begin, command, output or None, strict=not may_fail)
            command, output, begin = line[2:] + "\n", "", number
        elif line.startswith("> ") and not output:
            command += line[2:] + "\n"
        else:
            output += line + "\n"


def agrees(shown: str, printed: str) -> bool:
    """Whether `printed` is what the page shows; `...` stands for anything, blanks at the ends of lines for nothing."""
    wanted = ".*".join(re.escape(_bare(part)) for part in _bare(shown).split("..."))
    return re.fullmatch(wanted, _bare(printed), re.DOTALL) is not None


def _bare(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def write_script(found: list[Step], folder: Path) -> Path:
    """A bash script that runs each step in one shell and writes its output and exit code beside the script."""
    lines = ["trap 'code=$?; kill $(jobs -p) 2>/dev/null; wait; exit $code' EXIT", "code=0"]
    for number, step in enumerate(found):
        source = folder / f"{number}.sh"
        source.write_text(step.shell)
        # `$?` is that of the command before, as at a prompt.
        run = f"{{ (exit $code); . {source}; }} >{folder}/{number}.out 2>&1 </dev/null"
        lines += [run, f"code=$?; echo $code >{folder}/{number}.code"]
        if step.strict:
            lines.append("[ $code = 0 ] || exit $code")
    script = folder / "page.sh"
    script.write_text("\n".join(lines) + "\n")
    return script


def left_out() -> list[str]:
    """The blocks of all pages that are not run: place and reason."""
    found = [(page.relative_to(ROOT), block) for page in PAGES for block in blocks(page.read_text())]
    return [f"{page}:{block.line}: {block.not_run}" for page, block in found if block.not_run]
