"""The workflows parse, have time limits, and run only targets and files that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
OF_THE_RUNNER = {"loginctl"}
ASSIGNMENT = re.compile(r"\w+=")


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text())["jobs"]


def steps() -> list[tuple[str, dict[str, Any]]]:
    return [(name, step) for path in WORKFLOWS for name, job in jobs(path).items() for step in job["steps"]]


def commands() -> list[list[str]]:
    """The words of every line that a step runs, without `sudo` and assignments before it."""
    found = []
    for _, step in steps():
        for line in step.get("run", "").splitlines():
            words = shlex.split(line)
            while words and (ASSIGNMENT.match(words[0]) or words[0] == "sudo"):
                words.pop(0)
            found.append(words)
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_ci_workflow_runs_only_existing_targets_and_files(words: list[str]):
    if words[0] == "make":
        wanted = {word for word in words[1:] if not ASSIGNMENT.match(word)}
        assert wanted and wanted <= targets()
    else:
        assert words[0] in OF_THE_RUNNER or (REPO / words[0]).exists()


def test_ci_workflow_runs_the_tests_and_a_real_installation_on_linux_and_macos():
    path = REPO / ".github" / "workflows" / "ci.yml"
    for name, runner in (("linux", "ubuntu"), ("macos", "macos")):
        job = jobs(path)[name]
        assert job["runs-on"].startswith(runner)
        run = [step.get("run", "") for step in job["steps"]]
        assert any("make test-install" in text for text in run)
        assert "make test" in run


def test_nightly_workflow_runs_make_explore_on_a_schedule():
    nightly = yaml.safe_load((REPO / ".github" / "workflows" / "nightly.yml").read_text())
    assert nightly[True]["schedule"]  # YAML reads the key `on` as true
    assert any("make explore" in step.get("run", "") for step in nightly["jobs"]["explore"]["steps"])


def test_every_workflow_job_and_every_command_has_a_time_limit():
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            assert job["timeout-minutes"] <= 60, name
    for name, step in steps():
        assert "run" not in step or step["timeout-minutes"] <= 40, f"{name}: {step}"


def test_ci_workflow_has_only_read_permissions():
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
