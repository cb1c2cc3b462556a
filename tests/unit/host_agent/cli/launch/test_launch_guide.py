"""The launch guide lists the programs that `vestal launch` knows, and says how each client was tried."""

from __future__ import annotations

import re
from pathlib import Path

from host_agent.cli.launch.programs import PROGRAMS, Program

REPO = Path(__file__).resolve().parents[5]
GUIDE = REPO / "docs" / "guide" / "clients.md"
TRIED = re.compile(r"by hand, [A-Z][a-z]+ 20\d\d|`(tests/[\w/]+\.py)`")


def _row(name: str, program: Program) -> str:
    tried = f"`{program.tried_by}`" if program.tried_by.startswith("tests/") else program.tried_by
    cells = (
        program.title,
        program.version,
        program.works,
        f"`vestal launch {name}`",
        str(program.needs),
        tried,
    )
    return f"| {' | '.join(cells)} |"


def _rows(heading: str) -> list[str]:
    """Return the rows of the table below a heading of the guide, without its head."""
    section = GUIDE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_launch_guide_lists_the_same_programs_as_the_code():
    wanted = [_row(name, program) for name, program in PROGRAMS.items()]
    assert _rows("Agents and other programs") == wanted, "\n".join(["", *wanted])


def test_every_client_in_the_launch_guide_has_a_version_and_a_test_file_or_a_date_of_manual_trial():
    libraries = _rows("Libraries")
    assert len(libraries) > 15
    for row in [*_rows("Agents and other programs"), *libraries]:
        _, version, *_, tried = (cell.strip() for cell in row.strip("|").split(" | "))
        assert re.match(r"\d+(\.\d+)*", version), row
        found = TRIED.fullmatch(tried)
        assert found, row
        assert found[1] is None or (REPO / found[1]).exists(), row
