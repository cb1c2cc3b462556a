"""`vestal doctor`: show what is wrong with this machine, and the remedies.

The exit code is 1 if something is wrong, else 0. The command works without an agent, a Docker engine or valid
settings; if one of these is missing, a finding says so.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict

from host_agent.cli.screen.styled import Line, print_lines, unguarded, wrapped
from host_agent.cli.screen.waiting import ERASE_LINE
from host_agent.cli.table import Column, print_table
from host_agent.doctor import Finding, diagnose
from vestal.config import Config

MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "fault": ("✗", "red")}
COLUMNS = (Column(width=1), Column(width=22), Column(wraps=True))
NARROW_COLUMNS = 64


def run(options: argparse.Namespace, config: Config) -> int:
    on_terminal = sys.stderr.isatty()
    on_wait = _show_running if on_terminal else lambda names: None
    findings: list[Finding] = []
    for found in diagnose(config, options.problems, on_wait):
        findings += found
        if on_terminal:
            print(ERASE_LINE, end="", file=unguarded(sys.stderr), flush=True)
        if found and not options.json:
            _print(found)
    faults = [finding for finding in findings if finding.level == "fault"]
    if options.json:
        answer = {"findings": [asdict(finding) for finding in findings], "healthy": not faults}
        print(json.dumps(answer, indent=2))
    else:
        print(f"\n{_count(len(faults))}" if faults else "\nNothing is wrong.")
    return 1 if faults else 0


def _print(findings: Sequence[Finding]) -> None:
    """Print the findings as a table or, on a narrow terminal, each as a paragraph below its name."""
    width = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or width >= NARROW_COLUMNS:
        print_table(COLUMNS, [_row(finding) for finding in findings])
    else:
        print_lines(line for finding in findings for line in _narrow_lines(finding, width))
    sys.stdout.flush()


def _narrow_lines(finding: Finding, width: int) -> list[Line]:
    mark, style = MARKS[finding.level]
    text = str(_row(finding)[-1])
    lines = [part for line in text.split("\n") for part in wrapped([(line.strip(), "")], width - 2)]
    return [[(f"{mark} ", style), (finding.name, "bold")], *([("  ", ""), *line] for line in lines)]


def _row(finding: Finding) -> tuple[str | tuple[str, str], ...]:
    lines = [finding.sentence]
    if finding.evidence and finding.level != "ok":
        lines.append(f"  {finding.evidence}")
    if finding.remedy:
        lines.append(f"→ {finding.remedy}")
    return MARKS[finding.level], finding.name, "\n".join(lines)


def _count(faults: int) -> str:
    return "One thing is wrong." if faults == 1 else f"{faults} things are wrong."


def _show_running(names: Sequence[str]) -> None:
    """Show on the terminal's last line which of the doctor's checks are still running."""
    line = f"checking: {', '.join(names)}"
    width = shutil.get_terminal_size().columns - 1
    print(f"{ERASE_LINE}{line[:width]}", end="", file=unguarded(sys.stderr), flush=True)
