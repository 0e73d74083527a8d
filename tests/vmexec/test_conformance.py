"""The same specifications by vmexec and by crun, in one VM: what a program sees must be the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from firkin.types.state import StateDirs
from tests.vmexec.compare import differences, facts
from tests.vmexec.driver import Vmexec
from tests.vmexec.known import KNOWN, Known
from tests.vmexec.rig_vm import Results, Row, boot
from tests.vmexec.table import TABLE, Case

LEAST_ROWS = 120
pytestmark = [pytest.mark.vm, pytest.mark.needs_tool("crun"), pytest.mark.needs_tool("gcc")]


# One test, one VM: parametrized rows could land on two workers, and then boot it twice.
@pytest.mark.timeout(600)
def test_a_program_sees_the_same_as_under_crun(vmexec: Vmexec, home: Path, tmp_path: Path) -> None:
    mutants = {case.name: mutant for case in TABLE if (mutant := case.mutant())}
    rows = {_key(row): row for row in [*mutants.values(), *(case.row() for case in TABLE)]}
    results = boot(tmp_path, vmexec.binary, StateDirs.under(home), list(rows.values()))
    used: set[Known] = set()
    wrong = {case.name: found for case in TABLE if (found := _judge(case, results, used))}
    assert wrong == {}
    uncaught = [
        case.name
        for case in TABLE
        if case.name in mutants and not _unexplained(case, results, rows[_key(mutants[case.name])].name, set())
    ]
    assert uncaught == [], "a wrong result of these rows would not be noticed"
    assert [known.reason for known in KNOWN if known not in used] == [], "these differences are no more"
    assert results.noise == []
    assert len(TABLE) >= LEAST_ROWS
    assert len({_key(case.row()) for case in TABLE}) == len(TABLE)


def _key(row: Row) -> str:
    """Rows of one key are one row to vmexec."""
    return json.dumps([row.vmexec, row.vmexec_exec, row.tty], sort_keys=True)


def _judge(case: Case, results: Results, used: set[Known]) -> dict[str, Any]:
    """What is wrong with a row; empty if nothing is."""
    ours, theirs = results.vmexec[case.name], results.crun[case.name]
    if case.fails is not None:
        if ours.error.get("exit_code") != case.fails:
            return {"exit code": (ours.error, ours.output)}
        return {} if bool(theirs.seen) == case.crun_runs else {"crun ran": bool(theirs.seen)}
    if ours.failed:
        return {"failed": ours.error}
    if bool(theirs.seen) == case.crun_cannot:
        return {"crun": theirs.output}
    return _unexplained(case, results, case.name, used)


def _unexplained(case: Case, results: Results, name: str, used: set[Known]) -> dict[str, Any]:
    """The differences of vmexec's row `name` from what `case` must give, without the known ones."""
    found = differences(facts(results.vmexec[name], results.given), _expected(case, results))
    left = {}
    for fact, values in found.items():
        explained = [known for known in KNOWN if known.covers(case.name, fact, values)]
        used.update(explained)
        if not explained:
            left[fact] = values
    return left


def _expected(case: Case, results: Results) -> Mapping[str, Any]:
    theirs = results.crun["base" if case.crun_cannot else case.name]
    return facts(theirs, results.given) | case.only
