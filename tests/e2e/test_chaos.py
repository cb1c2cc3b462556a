"""A short `make chaos`: engine, gateway and agent are killed; no text is lost, and no text comes twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

REQUESTS = 18  # each kind of request once
KILLS = 3
KILLED = "engine,gateway,together"


@pytest.mark.model
@pytest.mark.timeout(300)
def test_chaos_with_each_process_killed_under_load_loses_and_repeats_no_text(repo, small_models_dir):
    command = [sys.executable, "-m", "benchmarks.chaos", "--requests", str(REQUESTS), "--kills", str(KILLS)]
    done = subprocess.run(
        [*command, "--kill", KILLED, "--least-equal", "0.9", "--time-limit", "250", "--json"],
        cwd=repo,
        env=os.environ | {"VESTAL_MODELS_DIR": str(small_models_dir)},
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    lines = [line for line in output.splitlines() if line.startswith("{")]
    figures: dict[str, Any] = json.loads(lines[0]) if lines else {}
    assert sum(figures.get("verdicts", {}).values()) >= REQUESTS, output
    assert figures["comebacks"]["cut_off"] > 0, output
    assert sum(cause["count"] for cause in figures["causes"].values()) == KILLS, output
    assert done.returncode == 0, output
