from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.figures import Figure
from benchmarks.runs.registry import module_names
from benchmarks.runs.run_folder import DONE, OUT_OF_TIME, Ended, RunFolder, latest_run
from benchmarks.scenario import Log, Scenario, Subjects


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    log(Figure("speed", "vestal", 1.0))


SPEED = Scenario("speed", "how fast", 10, 100, measure)


@pytest.fixture
def performed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Return what the command performs: the name of the run and the order. Nothing runs."""
    made: list[tuple[str, Any]] = []

    def perform(run: RunFolder, order: Any, scenarios: Any) -> int:
        made.append((run.name, order))
        return 0

    monkeypatch.setattr(command, "perform", perform)
    monkeypatch.setattr(command, "installed_models", lambda: None)
    monkeypatch.setattr(command, "scenarios", lambda: {"speed": SPEED})
    monkeypatch.setattr(command, "describe", lambda: {"vestal": "abc"})
    monkeypatch.setattr(command, "program_version", lambda: "abc")
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    return made


def stored(results: Path, version: str, ended: str) -> RunFolder:
    run = RunFolder(results / "full-20260101-000000")
    run.write_machine({"vestal": version})
    run.add_end(Ended("speed", ended, 1.0))
    return run


def test_benchmark_command_continues_an_unfinished_full_run(tmp_path: Path, performed: list[tuple[str, Any]]):
    stored(tmp_path, "abc", OUT_OF_TIME)
    assert command.stored_run("full", [], tmp_path) == 0
    assert performed[0][0] == "full-20260101-000000"


@pytest.mark.parametrize(
    ("version", "ended", "arguments"),
    [("abc", DONE, []), ("older", OUT_OF_TIME, []), ("abc", OUT_OF_TIME, ["--new"])],
    ids=["it is whole", "the program has changed", "a new one is asked for"],
)
def test_benchmark_command_starts_a_new_full_run_if_the_last_is_finished_or_outdated_or_on_request(
    tmp_path: Path, performed: list[tuple[str, Any]], version: str, ended: str, arguments: list[str]
):
    stored(tmp_path, version, ended)
    command.stored_run("full", arguments, tmp_path)
    assert performed[0][0] != "full-20260101-000000"
    latest = latest_run(tmp_path, "full")
    assert latest is not None and latest.name == performed[0][0]


def test_benchmark_command_with_resume_continues_a_run_of_another_version_and_records_both_versions(
    tmp_path: Path, performed: list[tuple[str, Any]]
):
    stored(tmp_path, "older", OUT_OF_TIME)
    command.stored_run("full", ["--resume"], tmp_path)
    command.stored_run("full", [], tmp_path)
    assert [name for name, _ in performed] == ["full-20260101-000000"] * 2
    assert RunFolder(tmp_path / "full-20260101-000000").machine()["vestal"] == "older, abc"


def test_benchmark_command_never_continues_a_quick_run(tmp_path: Path, performed: list[tuple[str, Any]]):
    stored(tmp_path, "abc", OUT_OF_TIME)
    command.stored_run("quick", ["--only", "speed", "--subjects", "vestal"], tmp_path)
    name, order = performed[0]
    assert name.startswith("quick-") and order.scenarios == ["speed"] and order.subjects == ["vestal"]


def test_benchmark_command_refuses_an_unknown_scenario_and_runs_nothing(
    tmp_path: Path, performed: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
):
    assert command.stored_run("quick", ["--only", "spede"], tmp_path) == 2
    assert "spede" in capsys.readouterr().err and not performed


def test_benchmark_command_refuses_an_unknown_benchmark_and_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str],
):
    assert command.main(["spede"]) == 2
    shown = capsys.readouterr()
    assert "spede" in shown.err and "throughput" in shown.out and "wire" in shown.out
    assert command.main(["--list"]) == 0


def test_every_benchmark_command_named_in_docs_or_code_is_an_existing_module():
    """Docs and docstrings name `python -m benchmarks.ROOM.MODULE`; the named modules must exist."""
    repo = Path(__file__).resolve().parents[3]
    listed = subprocess.run(["git", "ls-files"], cwd=repo, capture_output=True, text=True, timeout=110)
    texts = [
        (repo / name).read_text()
        for name in listed.stdout.split()
        if name.endswith((".md", ".py", ".yaml", "Makefile")) and (repo / name).is_file()
    ]
    named = {
        module for text in texts for module in re.findall(r"-m[\s\",]+(benchmarks(?:\.[a-z_]+)*)", text)
    } | set(module_names().values())
    assert "benchmarks.report" in named
    assert not [module for module in named if importlib.util.find_spec(module) is None]
