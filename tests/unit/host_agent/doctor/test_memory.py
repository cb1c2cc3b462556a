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


def test_assess_memory_of_stranded_wired_memory_advises_a_reboot_and_no_restarts():
    found = wired_memory.assess_memory(wired("vm_stat_wired.txt"), 0.2)
    assert found.level == "fault"
    assert "74%" in found.sentence
    assert "only a reboot" in found.remedy and "Stop restarting" in found.remedy
    assert "vm_stat" in found.evidence and "memory_pressure: 20%" in found.evidence


def test_assess_memory_of_wired_memory_held_by_model_servers_is_ok():
    assert (
        wired_memory.assess_memory(wired("vm_stat_wired.txt"), 0.2, model_server_bytes=12 * GIB).level == "ok"
    )


def test_assess_memory_of_usual_wired_memory_is_ok():
    free = memory_tools.parse_memory_pressure((RECORDED / "macos/memory_pressure.txt").read_text())
    assert wired_memory.assess_memory(wired("vm_stat.txt"), free).level == "ok"
    assert wired_memory.assess_memory(wired("vm_stat.txt"), None).level == "ok"


def test_assess_memory_under_pressure_advises_to_close_programs():
    found = wired_memory.assess_memory(wired("vm_stat.txt"), 0.05)
    assert found.level == "fault"
    assert "Close programs" in found.remedy


@pytest.mark.parametrize(
    ("available", "swap_used", "level"), [(0.02, 0.0, "fault"), (0.02, 1.0, "fault"), (0.5, 1.0, "ok")]
)
def test_assess_memory_without_wired_memory_uses_the_available_memory(
    available: float, swap_used: float, level: str
):
    swap = round(swap_used * GIB)
    found = wired_memory.assess_memory(Memory(TOTAL, round(available * TOTAL), swap, swap))
    assert (found.level, found.evidence) == (level, "")
    assert f"{available:.0%} of the machine's memory is available" in found.sentence


def test_assess_memory_with_free_swap_is_ok():
    assert wired_memory.assess_memory(Memory(TOTAL, TOTAL // 50, GIB, 8 * GIB)).level == "ok"


def test_assess_kill_names_the_limit_and_the_memory_of_the_process():
    (by_host, by_group) = kernel_log.oom_kills((RECORDED / "linux/kernel_oom.txt").read_text())
    found = oom_killed.assess_kill(by_group, "mlx_engine")
    assert "mlx_engine" in found.sentence and "a memory limit of its own" in found.sentence
    assert "2.4 GiB" in found.evidence
    assert "this machine had no memory left" in oom_killed.assess_kill(by_host, "mlx_engine").sentence


def test_services_by_pid_reads_start_events():
    events = [{"component": "mlx_engine", "fields": {"pid": 7}}, {"component": "nightly", "fields": {}}]
    assert oom_killed.services_by_pid(events) == {7: "mlx_engine"}
