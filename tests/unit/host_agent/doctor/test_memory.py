"""Assessing memory: wired memory, and kills by the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.doctor.memory import oom_killed, wired_memory
from vestal.platform import kernel_log
from vestal.platform.macos import memory_tools
from vestal.platform.memory import Memory

RECORDED = Path(__file__).resolve().parents[3] / "recorded"
TOTAL = 25_769_803_776
GIB = 1024**3


def wired(name: str) -> Memory:
    found = memory_tools.parse_vm_stat((RECORDED / "macos" / name).read_text())
    assert found
    return Memory(TOTAL, TOTAL // 4, 0, 0, found)


def test_doctor_advises_a_reboot_and_no_restarts_if_wired_memory_is_stranded():
    found = wired_memory.assess_memory(wired("vm_stat_wired.txt"), 0.2)
    assert found.level == "fault"
    assert "74%" in found.sentence
    assert "only a reboot" in found.remedy and "Stop restarting" in found.remedy
    assert "vm_stat" in found.evidence and "memory_pressure: 20%" in found.evidence


def test_doctor_accepts_wired_memory_that_model_servers_hold():
    assert (
        wired_memory.assess_memory(wired("vm_stat_wired.txt"), 0.2, model_server_bytes=12 * GIB).level == "ok"
    )


def test_doctor_accepts_the_usual_amount_of_wired_memory():
    free = memory_tools.parse_memory_pressure((RECORDED / "macos/memory_pressure.txt").read_text())
    assert wired_memory.assess_memory(wired("vm_stat.txt"), free).level == "ok"
    assert wired_memory.assess_memory(wired("vm_stat.txt"), None).level == "ok"


def test_doctor_advises_closing_programs_if_memory_is_under_pressure():
    found = wired_memory.assess_memory(wired("vm_stat.txt"), 0.05)
    assert found.level == "fault"
    assert "Close programs" in found.remedy


@pytest.mark.parametrize(
    ("available", "swap_used", "level"), [(0.02, 0.0, "fault"), (0.02, 1.0, "fault"), (0.5, 1.0, "ok")]
)
def test_doctor_judges_memory_by_what_is_available_if_wired_memory_is_unknown(
    available: float, swap_used: float, level: str
):
    swap = round(swap_used * GIB)
    found = wired_memory.assess_memory(Memory(TOTAL, round(available * TOTAL), swap, swap))
    assert (found.level, found.evidence) == (level, "")
    assert f"{available:.0%} of the machine's memory is available" in found.sentence


def test_doctor_accepts_little_available_memory_if_swap_is_free():
    assert wired_memory.assess_memory(Memory(TOTAL, TOTAL // 50, GIB, 8 * GIB)).level == "ok"


def test_doctor_reports_a_kill_for_memory_with_the_limit_hit_and_the_memory_of_the_process():
    (by_host, by_group) = kernel_log.oom_kills((RECORDED / "linux/kernel_oom.txt").read_text())
    found = oom_killed.assess_kill(by_group, "mlx_engine")
    assert "mlx_engine" in found.sentence and "a memory limit of its own" in found.sentence
    assert "2.4 GiB" in found.evidence
    assert "this machine had no memory left" in oom_killed.assess_kill(by_host, "mlx_engine").sentence


def test_services_by_pid_maps_the_pid_of_each_start_event_to_its_service():
    events = [{"component": "mlx_engine", "fields": {"pid": 7}}, {"component": "nightly", "fields": {}}]
    assert oom_killed.services_by_pid(events) == {7: "mlx_engine"}
