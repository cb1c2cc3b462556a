"""`vestal doctor`: what is wrong with this machine, and the remedy. Exit code 0 nothing, 1 something."""

import argparse
import json
from dataclasses import asdict

from host_agent.config import Config
from host_agent.doctor import diagnose

MARKS = {"ok": "✓", "note": "·", "fault": "✗"}


def run(options: argparse.Namespace, config: Config) -> int:
    findings = diagnose(config)
    healthy = all(finding.level != "fault" for finding in findings)
    if options.json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "healthy": healthy}, indent=2))
        return 0 if healthy else 1
    for finding in findings:
        print(f"{MARKS[finding.level]} {finding.name:20} {finding.sentence}")
        if finding.remedy:
            print(f"  {'':20} → {finding.remedy}")
    return 0 if healthy else 1
