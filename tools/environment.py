"""Make `.venv`: the dependencies at their pinned versions, the development tools, and Firkin itself, editable.

Run by any Python from 3.11. Quick where nothing changed: a stamp in `.venv` holds the hash of what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "tools" / "constraints.txt"
STAMP = VENV / "firkin-stamp"


def project() -> dict[str, object]:
    """The tables of pyproject.toml that say what is installed."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {name: tables[name] for name in ("build-system", "project", "dependency-groups")}


def key(tables: dict[str, object]) -> str:
    """The hash of everything that the environment is made from."""
    parts = [json.dumps(tables, sort_keys=True), CONSTRAINTS.read_text(), sys.version, str(ROOT)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def install(tables: dict[str, object]) -> None:
    """Install the requirements of `tables`, then Firkin (which builds the guest)."""
    groups = tables["dependency-groups"]
    requirements: list[str] = [*tables["project"]["dependencies"], *groups["dev"], *groups["docs"]]  # type: ignore[index]
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(CONSTRAINTS), *requirements], check=True, stdin=subprocess.DEVNULL)
    editable = ["--no-build-isolation", "--no-deps", "--editable", str(ROOT)]
    subprocess.run([*pip, *editable], check=True, stdin=subprocess.DEVNULL)


def main() -> None:
    """Bring `.venv` up to date."""
    tables = project()
    wanted = key(tables)
    if STAMP.exists() and STAMP.read_text() == wanted and (VENV / "bin" / "firkin").exists():
        return
    print("venv: installing the dependencies into .venv", file=sys.stderr)
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True, symlinks=True)
    try:
        install(tables)
    except subprocess.CalledProcessError as error:
        sys.exit(f"venv: pip failed with status {error.returncode} (its own words are above)")
    STAMP.write_text(wanted)


if __name__ == "__main__":
    main()
