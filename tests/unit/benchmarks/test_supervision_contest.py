"""The comparison of supervisors: what is logged of one that works, fails, or is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures import Figure
from benchmarks.peers.process import PeerFailed, RunningProcess
from benchmarks.peers.supervisors import (
    SUPERVISOR_PEERS,
    VESTAL_SUPERVISOR,
    ForegroundSupervisor,
)
from benchmarks.scenario import Subjects
from benchmarks.supervision import contest
from benchmarks.supervision.contest import Disturbance, run

ONE = Disturbance("a test", {"a_ms": "ms", "b_mb": "MB"}, lambda peer: {"a_ms": 1.5, "b_mb": 2.0})


@pytest.fixture
def disturbances(monkeypatch: pytest.MonkeyPatch) -> list[Disturbance]:
    given = [ONE]
    monkeypatch.setattr(contest, "DISTURBANCES", given)
    return given


def logged(rounds: int = 1) -> list[tuple]:
    figures: list[Figure] = []
    run(figures.append, Subjects(only=["vestal"]), rounds)
    return [(each.row, each.subject, each.value, each.unit, each.better, each.round) for each in figures]


def test_comparison_of_supervisors_logs_each_row_of_each_round(disturbances: list[Disturbance]):
    assert logged(2) == [
        ("supervision/a_ms", "vestal", 1.5, "ms", "lower", 1),
        ("supervision/b_mb", "vestal", 2.0, "MB", "lower", 1),
        ("supervision/a_ms", "vestal", 1.5, "ms", "lower", 2),
        ("supervision/b_mb", "vestal", 2.0, "MB", "lower", 2),
    ]


def test_comparison_of_supervisors_logs_a_dead_supervisor_as_failed_in_each_row(
    disturbances: list[Disturbance],
):
    def dies(peer: object) -> dict[str, float]:
        raise PeerFailed("it ended")

    disturbances[:] = [Disturbance("a test", ONE.units, dies)]
    figures: list[Figure] = []
    run(figures.append, Subjects(only=["vestal"]), 1)
    assert [(each.row, each.failed) for each in figures] == [
        ("supervision/a_ms", "it ended"),
        ("supervision/b_mb", "it ended"),
    ]


def test_comparison_of_supervisors_omits_a_missing_supervisor_and_says_why(
    disturbances: list[Disturbance], monkeypatch: pytest.MonkeyPatch
):
    absent = ForegroundSupervisor("absent", lambda: "It is not installed.", lambda: "", lambda *_: [])
    monkeypatch.setattr(contest, "SUPERVISOR_PEERS", (absent,))
    figures: list[Figure] = []
    subjects = Subjects()
    run(figures.append, subjects, 1)
    assert subjects.skipped == {"absent": "It is not installed."}
    assert {each.subject for each in figures} == {"vestal"}


def test_supervisor_that_is_not_installed_fails_to_start_with_the_reason(tmp_path: Path):
    absent = ForegroundSupervisor("absent", lambda: "It is not installed.", lambda: "", lambda *_: [])
    with pytest.raises(PeerFailed, match=r"absent cannot run here. It is not installed."):
        absent.start(tmp_path, tmp_path / "child")


def test_vestals_supervisor_in_the_comparison_starts_its_child_and_stops_cleanly(tmp_path: Path):
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/starts\nexec sleep 3600\n")
    child.chmod(0o700)
    process: RunningProcess = VESTAL_SUPERVISOR.start(tmp_path, child)
    process.terminate()
    assert process.returncode == 0
    process.close()


def test_settings_written_for_each_compared_supervisor_contain_the_path_of_the_child_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from benchmarks.peers.environments import Environment

    monkeypatch.setattr(Environment, "path", lambda self: tmp_path / self.name)
    for peer in SUPERVISOR_PEERS:
        assert isinstance(peer, ForegroundSupervisor)
        folder = tmp_path / f"run-{peer.name}"
        folder.mkdir()
        command = peer.command(folder, folder / "child")
        assert str(tmp_path / peer.name) in command
        written = "".join(file.read_text() for file in folder.iterdir())
        assert str(folder / "child") in written
        assert "{folder}" not in written
    assert (tmp_path / "run-monit" / "settings").stat().st_mode & 0o077 == 0, "monit refuses it otherwise"
