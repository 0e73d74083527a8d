"""The rules of CONTRIBUTING.md and docs that a program can check, over every tracked file."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import firkin

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FILE = 600, 60, 200
# Not written by hand.
GENERATED = ("guest/Cargo.lock", "LICENSE", "tests/vectors/")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Hosts that anybody may name; every other one that this machine fetches packages from is its own business.
PUBLIC_HOSTS = {"deb.debian.org", "security.debian.org", "pypi.org", "files.pythonhosted.org", "github.com"}
PUBLIC_HOSTS |= {"crates.io", "index.crates.io", "static.crates.io", "localhost", "127.0.0.1"}


@cache
def tracked(*suffixes: str) -> tuple[Path, ...]:
    """Files that git knows, with one of the suffixes if there are any, and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return tuple(path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def by_hand(*suffixes: str) -> list[Path]:
    return [path for path in tracked(*suffixes) if not name(path).startswith(GENERATED)]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def python(folder: str) -> list[Path]:
    return [path for path in tracked(".py") if name(path).startswith(f"{folder}/")]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, FUNCTIONS))


def dotted(node: ast.expr) -> str:
    """The dotted name that an expression is, or the empty text."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def test_no_file_is_longer_than_a_noun_or_a_verb() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in by_hand(".py", ".rs", ".sh", ".proto", ".md")}
    assert {path: count for path, count in lengths.items() if count > LONGEST_FILE} == {}


@pytest.mark.parametrize("suffix", [".py", ".rs"])
def test_the_median_file_is_short(suffix: str) -> None:
    lengths = [len(path.read_text().splitlines()) for path in by_hand(suffix)]
    assert statistics.median(lengths) < MEDIAN_FILE


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}: {(node.end_lineno or 0) - node.lineno + 1} lines"
        for path in by_hand(".py")
        for node in functions(path)
        if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    ]
    assert long == []


def test_everything_tracked_is_text() -> None:
    def is_text(path: Path) -> bool:
        content = path.read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError:
            return False
        return b"\0" not in content

    assert [name(path) for path in tracked() if not is_text(path)] == []


def package_hosts() -> set[str]:
    """Hosts that apt, pip and cargo of this machine are configured to fetch from, but the public ones."""
    places = [
        *Path("/etc/apt").glob("sources.list*"),
        *Path("/etc/apt/sources.list.d").glob("*"),
        Path("/etc/pip.conf"),
    ]
    home = Path.home()
    places += [home / ".cargo/config.toml", home / ".config/pip/pip.conf", home / ".pip/pip.conf"]
    text = "\n".join(path.read_text(errors="replace") for path in places if path.is_file())
    text += "\n".join(path for path in map(str, (Path("/proc/self/environ").read_text().split("\0"))) if "://" in path)
    found = {urlsplit(url).hostname for url in re.findall(r"https?://[^\s\"',]+", text)}
    return {host for host in found if host and host not in PUBLIC_HOSTS}


def test_nothing_names_the_machine_it_was_written_on() -> None:
    private = [
        re.escape(str(ROOT)) + r"\b",
        r"-----BEGIN [A-Z ]*PRIVATE KEY",
        r"\bgh[ps]_\w{20}",
        r"\bAKIA[0-9A-Z]{16}\b",
    ]
    private += [rf"(?<![\w.-]){re.escape(host)}(?![\w-])" for host in package_hosts() if "." in host]
    if len(ROOT.parts) > 2:  # a checkout at /app would find the working folders of containers
        private.append(re.escape(str(ROOT)) + r"\b")
    pattern = re.compile("|".join(private))
    found = [f"{name(path)}: {match.group(0)}" for path in tracked() for match in pattern.finditer(path.read_text())]
    assert found == []


def _asserts(node: ast.AST, helpers: frozenset[str]) -> bool:
    """Whether `node` asserts: by a statement (not of a constant), `pytest.raises` and its like, or a helper."""
    for each in ast.walk(node):
        if isinstance(each, ast.Assert) and not isinstance(each.test, ast.Constant):
            return True
        if isinstance(each, ast.Call):
            called = dotted(each.func)
            if called in ("pytest.raises", "pytest.fail", "pytest.warns") or called in helpers:
                return True
    return False


@cache
def asserting_helpers() -> frozenset[str]:
    """Names of functions of `tests/` that assert something, themselves or by one another."""
    everything = [node for path in python("tests") for node in functions(path)]
    helpers: frozenset[str] = frozenset()
    while True:
        grown = frozenset(node.name for node in everything if _asserts(node, helpers))
        if grown == helpers:
            return helpers
        helpers = grown


def test_every_test_asserts_something() -> None:
    tests = [
        (path, node)
        for path in python("tests")
        if path.name.startswith("test_")
        for node in functions(path)
        if node.name.startswith("test_")
    ]
    assert [
        f"{name(path)}:{node.lineno} {node.name}" for path, node in tests if not _asserts(node, asserting_helpers())
    ] == []


def test_no_test_patches_or_skips_in_silence() -> None:
    found = []
    for path in python("tests"):
        for call in calls(tree(path)):
            called = dotted(call.func)
            reason = [*call.args[-1:], *(keyword.value for keyword in call.keywords if keyword.arg == "reason")]
            silent = called in (
                "pytest.skip",
                "pytest.mark.skip",
                "pytest.mark.skipif",
                "pytest.mark.xfail",
            ) and not any(
                isinstance(each, ast.JoinedStr) or (isinstance(each, ast.Constant) and isinstance(each.value, str))
                for each in reason
            )
            patch = called in ("monkeypatch.setattr", "mock.patch", "patch", "mock.patch.object", "patch.object")
            if silent or patch or called == "pytest.importorskip":
                found.append(f"{name(path)}:{call.lineno} {called}")
    assert found == []


def declared_points() -> dict[str, str]:
    """Fault points that `src` declares: name to place. A name must be a literal, so that it can be looked for."""
    found = {}
    for path in python("src"):
        for call in calls(tree(path)):
            if dotted(call.func) in ("declare", "faults.declare"):
                first = call.args[0]
                assert isinstance(first, ast.Constant), f"{name(path)}:{call.lineno}: the name is not a literal"
                assert isinstance(first.value, str)
                found[first.value] = f"{name(path)}:{call.lineno}"
    return found


def test_every_fault_point_is_named_in_a_test() -> None:
    texts = "\n".join(path.read_text() for path in python("tests"))
    missing = {point: place for point, place in declared_points().items() if f'"{point}"' not in texts}
    assert missing == {}


def test_fault_points_are_dotted_names() -> None:
    assert [point for point in declared_points() if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", point)] == []


def test_public_modules_say_what_they_export() -> None:
    def has_all(path: Path) -> bool:
        targets = [target for node in tree(path).body if isinstance(node, ast.Assign) for target in node.targets]
        return any(dotted(target) == "__all__" for target in targets)

    def defines(path: Path) -> bool:
        return any(
            isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_") for node in tree(path).body
        )

    public = [path for path in python("src") if not path.name.startswith("_") and defines(path)]
    assert [name(path) for path in public if not has_all(path)] == []


def test_library_code_neither_prints_nor_exits() -> None:
    found = [
        f"{name(path)}:{call.lineno} {dotted(call.func)}"
        for path in python("src")
        if "/cli/" not in name(path)
        for call in calls(tree(path))
        if dotted(call.func) in ("print", "exit", "quit", "sys.exit")
    ]
    assert found == []


def test_the_changelog_says_what_is_new() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(Unreleased|[0-9.]+)\]", text, re.MULTILINE)
    assert re.search(r"^- \w", text, re.MULTILINE)


def test_the_version_has_one_source() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/firkin/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", firkin.__version__)


def test_every_scenario_but_those_of_pods_is_a_test() -> None:
    folder = ROOT / "tests" / "scenarios"
    lines = [line for line in (folder / "titles.txt").read_text().splitlines() if line and not line.startswith("#")]
    texts = "\n".join(path.read_text() for path in folder.glob("test_*.py"))
    titles = [line.partition(": ")[2] for line in lines if not line.startswith("pod: ")]
    assert [title for title in titles if f'scenario("{title}")' not in texts] == []


def test_the_guest_bears_the_same_version() -> None:
    workspace = tomllib.loads((ROOT / "guest" / "Cargo.toml").read_text())["workspace"]["package"]
    assert firkin.__version__.startswith(workspace["version"])


def test_relative_links_of_the_docs_lead_somewhere() -> None:
    broken = [
        f"{name(path)}: {target}"
        for path in tracked(".md")
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert broken == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    assert [path.name for path in tracked(".md") if path.parent == folder and f"({path.name})" not in index] == [
        "README.md"
    ]


def test_every_dependency_has_a_reason_and_an_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    requirements = [*project["project"]["dependencies"], *groups["dev"], *groups["docs"]]
    names = [re.split(r"[<>=~!\[; ]", requirement)[0] for requirement in requirements]
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "tools" / "constraints.txt").read_text(), re.MULTILINE)
    reasons = (ROOT / "docs" / "decisions" / "dependencies.md").read_text()
    assert [each for each in names if each not in pinned] == []
    assert [each for each in names if not re.search(rf"(\| |, ){re.escape(each)}( \||,)", reasons)] == []
