"""`vestal doctor`: what is wrong with this machine, and the remedy. Exit code 0 nothing, 1 something.

It needs no agent, no Docker engine and no sound settings: each of these is something that it tells of.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict

from host_agent.doctor import Finding, diagnose
from vestal.config import Config

MARKS = {"ok": "✓", "note": "·", "fault": "✗"}
WIDTH = 22
ERASE = "\r\x1b[K"


def run(options: argparse.Namespace, config: Config) -> int:
    on_terminal = sys.stderr.isatty()
    findings: list[Finding] = []
    for found in diagnose(config, options.problems, _show_waiting if on_terminal else lambda names: None):
        findings += found
        if on_terminal:
            print(ERASE, end="", file=sys.stderr, flush=True)
        if not options.json:
            _show(found)
    faults = [finding for finding in findings if finding.level == "fault"]
    if options.json:
        print(json.dumps({"findings": [asdict(each) for each in findings], "healthy": not faults}, indent=2))
    else:
        print(f"\n{len(faults)} to be mended." if faults else "\nNothing is wrong.")
    return 1 if faults else 0


def _show(findings: Sequence[Finding]) -> None:
    for finding in findings:
        print(f"{MARKS[finding.level]} {finding.name:{WIDTH}} {finding.sentence}")
        if finding.evidence and finding.level != "ok":
            print(f"  {'':{WIDTH}}   {finding.evidence}")
        if finding.remedy:
            print(f"  {'':{WIDTH}} → {finding.remedy}")
    sys.stdout.flush()


def _show_waiting(names: Sequence[str]) -> None:
    line = f"looking: {', '.join(names)}"
    print(f"{ERASE}{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr, flush=True)
