"""Servers that listen and do not answer: hung, suspended, or since the machine slept."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from host_agent.doctor.installation import port_in_use
from host_agent.doctor.unresponsive.hung import diagnose_hung, diagnose_hung_since_sleep
from host_agent.journal import Journal
from tests.component.host_agent.conftest import suspend
from tests.component.host_agent.doctor.conftest import CHILDREN, EMPTY_OLLAMA_ANSWERS, faults, until

Run = Callable[..., subprocess.Popen[bytes]]


def test_doctor_reports_a_hung_ollama_with_its_pid(config_with_ollama, run, free_port, tmp_path: Path):
    port, flag = free_port(), tmp_path / "hang"
    flag.touch()
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port), str(flag))
    found = until(lambda: faults(diagnose_hung(config_with_ollama(port), timeout_s=0.5)), "it listens")
    assert f"ollama (PID {process.pid}) hangs." == found[0].sentence
    assert "no answer within 0.5 s" in found[0].evidence
    assert f"`kill {process.pid}`, then `ollama serve`" in found[0].remedy


def test_doctor_reports_an_ollama_hung_since_the_machine_slept_only_in_the_sleep_diagnosis(
    config_with_ollama, run, free_port, tmp_path: Path
):
    port, flag = free_port(), tmp_path / "hang"
    flag.touch()
    config = config_with_ollama(port)
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port), str(flag))
    until(lambda: faults(diagnose_hung(config, lambda config: None, 0.3)), "it listens")
    woke_at = time.time()  # after it was started
    (found,) = faults(diagnose_hung_since_sleep(config, lambda config: woke_at, 0.3))
    assert f"ollama (PID {process.pid}) has hung since the machine slept." == found.sentence
    assert "the machine woke at" in found.evidence
    assert f"`kill {process.pid}`" in found.remedy
    assert faults(diagnose_hung(config, lambda config: woke_at, 0.3)) == [], (
        "only one of the two diagnoses reports it"
    )


def test_doctor_takes_the_time_of_the_machines_last_wake_from_the_agents_journal(config_with_ollama, serve):
    config = config_with_ollama(serve({"/api/tags": (500, {"error": "reentrancy"})}))
    config.home.prepare()
    journal = Journal(
        config.home.journal_db, wall=lambda: time.time() + 60
    )  # after the start of this process
    journal.record("agent", "machine_woke", slept_s=3600.0)
    journal.close()
    (found,) = faults(diagnose_hung_since_sleep(config))
    assert "has hung since the machine slept" in found.sentence


def test_doctor_does_not_blame_sleep_for_a_hung_ollama_started_after_the_machine_woke(
    config_with_ollama, serve
):
    config = config_with_ollama(serve({"/api/tags": (500, {"error": "reentrancy"})}))
    assert faults(diagnose_hung_since_sleep(config, lambda config: 1000.0)) == []
    assert len(faults(diagnose_hung(config, lambda config: 1000.0))) == 1


def test_doctor_reports_an_ollama_that_answers_500_as_hung(config_with_ollama, serve):
    (found,) = faults(diagnose_hung(config_with_ollama(serve({"/api/tags": (500, {"error": "reentrancy"})}))))
    assert "it answered 500" in found.evidence


def test_doctor_does_not_report_a_responsive_ollama_as_hung(config_with_ollama, serve):
    assert faults(diagnose_hung(config_with_ollama(serve(EMPTY_OLLAMA_ANSWERS)))) == []


def test_doctor_does_not_report_a_silent_foreign_program_as_a_hung_server(
    configure, run: Run, tmp_path: Path
):
    config = configure()
    flag = tmp_path / "hang"
    flag.touch()
    run(sys.executable, str(CHILDREN / "answers_http.py"), str(config.mlx.port), str(flag))
    until(lambda: faults(port_in_use.diagnose(config)), "it listens")
    assert faults(diagnose_hung(config)) == []


def test_doctor_reports_a_server_suspended_by_sigstop_as_stopped(configure, run: Run, free_port):
    port = free_port()
    process = run(sys.executable, str(CHILDREN / "answers_http.py"), str(port))
    config = configure(VESTAL_OLLAMA__MANAGE="auto", VESTAL_OLLAMA__BASE_URL=f"http://127.0.0.1:{port}")
    until(lambda: psutil.Process(process.pid).net_connections(), "it listens")
    suspend(process.pid)
    (found,) = faults(diagnose_hung(config, timeout_s=0.3))
    assert f"ollama (PID {process.pid}) is stopped (SIGSTOP)" in found.sentence
    assert found.remedy == f"`kill -CONT {process.pid}` continues it."
