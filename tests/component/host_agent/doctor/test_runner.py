"""Running diagnoses: at the same time, with a timeout, and the others go on if one fails or hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest

from host_agent.doctor import DIAGNOSES, runner
from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config


def succeeds(config: Config) -> Iterator[Finding]:
    yield Finding("succeeds", "ok", "It is fine.")


def fails(config: Config) -> Iterator[Finding]:
    yield Finding("fails", "note", "Found before it failed.")
    raise PermissionError("no")


@pytest.fixture
def hangs() -> Iterator[Diagnosis]:
    over = threading.Event()

    def diagnose(config: Config) -> Iterator[Finding]:
        over.wait()
        yield Finding("hangs", "ok", "It is fine.")

    yield Diagnosis("hangs", diagnose, 0.2)
    over.set()


def test_doctor_reports_a_hung_diagnosis_as_a_fault_without_waiting_for_it(
    configure, hangs: Diagnosis, monkeypatch: pytest.MonkeyPatch
):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: clock.now))
    seen: list[list[str]] = []

    def on_wait(names: Sequence[str]) -> None:
        seen.append(list(names))
        if seen[-1] == ["hangs"]:
            clock.now = 1.0

    found = list(runner.run((hangs, Diagnosis("succeeds", succeeds)), configure(), on_wait))
    assert found[0] == [
        Finding(
            "hangs",
            "fault",
            "This could not be checked: no result within 0.2 s.",
            "Something that it asks hangs; run `vestal doctor` again later.",
        )
    ]
    assert found[1] == [Finding("succeeds", "ok", "It is fine.")]
    assert ["hangs"] in seen, "on_wait gets the names that still run"


def test_doctor_reports_a_diagnosis_that_raises_as_a_fault_and_runs_the_others(configure):
    found = list(runner.run((Diagnosis("fails", fails), Diagnosis("succeeds", succeeds)), configure()))
    assert [(finding.name, finding.level) for finding in found[0]] == [("fails", "note"), ("fails", "fault")]
    assert "PermissionError" in found[0][1].sentence
    assert [finding.level for finding in found[1]] == ["ok"]


def test_doctor_diagnoses_have_unique_names_and_bounded_timeouts():
    names = [diagnosis.name for diagnosis in DIAGNOSES]
    assert len(set(names)) == len(names)
    assert all(diagnosis.timeout_s < 120 for diagnosis in DIAGNOSES)
