"""A short `make chaos`: the engine is killed under load; nothing is lost, nothing comes twice (R6.1)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest


@pytest.mark.model
@pytest.mark.timeout(240)
def test_chaos_when_engine_is_killed_under_load_loses_and_doubles_nothing(repo, models_dir):
    command = [sys.executable, "-m", "benchmarks.chaos", "--requests", "10", "--kills", "3"]
    environment = os.environ | {"VESTAL_MODELS_DIR": str(models_dir)}
    done = subprocess.run(
        [*command, "--least-equal", "0.9", "--time-limit", "200", "--json"],
        cwd=repo,
        env=environment,
        capture_output=True,
        text=True,
    )
    told = done.stdout + done.stderr
    figures: dict[str, Any] = next(
        (json.loads(line) for line in told.splitlines() if line.startswith("{")), {}
    )
    assert figures.get("sent", 0) >= 10, told
    assert figures["finished"] == figures["sent"], told
    assert sum(figures["kills"].values()) == 3, told
    assert done.returncode == 0, told
