"""The round itself: side by side, bounded, and one that fails or hangs does not silence the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from host_agent.doctor import DIAGNOSES, run_diagnoses
from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config


def well(config: Config) -> Iterator[Finding]:
    yield Finding("well", "ok", "is well")


def fails(config: Config) -> Iterator[Finding]:
    yield Finding("fails", "note", "seen before it failed")
    raise PermissionError("no")


@pytest.fixture
def hangs() -> Iterator[Diagnosis]:
    over = threading.Event()

    def look(config: Config) -> Iterator[Finding]:
        over.wait()
        yield Finding("hangs", "ok", "is well")

    yield Diagnosis("hangs", look, 0.2)
    over.set()


def test_diagnosis_that_hangs_is_named_and_not_waited_for(configure, hangs: Diagnosis):
    before = time.monotonic()
    seen: list[list[str]] = []
    found = list(
        run_diagnoses.go(
            (hangs, Diagnosis("well", well)), configure(), lambda names: seen.append(list(names))
        )
    )
    assert time.monotonic() - before < 10
    assert found[0] == [
        Finding(
            "hangs",
            "fault",
            "could not be looked at: no end within 0.2 s",
            "something that it asks hangs; look again later",
        )
    ]
    assert found[1] == [Finding("well", "ok", "is well")]
    assert ["hangs"] in seen, "who is waited for is told"


def test_diagnosis_that_fails_is_not_called_well_and_silences_no_other(configure):
    found = list(run_diagnoses.go((Diagnosis("fails", fails), Diagnosis("well", well)), configure()))
    assert [(finding.name, finding.level) for finding in found[0]] == [("fails", "note"), ("fails", "fault")]
    assert "PermissionError" in found[0][1].sentence
    assert [finding.level for finding in found[1]] == ["ok"]


def test_every_diagnosis_has_a_name_of_its_own():
    names = [diagnosis.name for diagnosis in DIAGNOSES]
    assert len(set(names)) == len(names)
    assert all(diagnosis.within_s < 120 for diagnosis in DIAGNOSES)
