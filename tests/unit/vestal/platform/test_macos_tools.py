"""What the platform's own tools print, read. tests/recorded/README.md says where each form comes from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from vestal.platform import kernel_log
from vestal.platform.kernel_log import Kill
from vestal.platform.macos import brew, jetsam, memory_pressure, sysctl, vm_stat
from vestal.platform.macos.brew import BrewService
from vestal.platform.ports import PortHolder, parse_lsof
from vestal.platform.processes import ps
from vestal.platform.processes.ps import Process

RECORDED = Path(__file__).resolve().parents[3] / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_vm_stat_of_apple_silicon_counts_in_its_own_pages():
    found = vm_stat.parse(recorded("macos/vm_stat.txt"))
    assert found == vm_stat.VmStat(16384, 212_530 * 16_384, 39_656 * 16_384)


def test_vm_stat_of_an_intel_mac_counts_in_smaller_pages():
    text = recorded("macos/vm_stat.txt").replace("16384", "4096")
    found = vm_stat.parse(text)
    assert found and found.wired_bytes == 212_530 * 4_096


def test_vm_stat_that_is_none_tells_nothing():
    assert vm_stat.parse("") is None
    assert vm_stat.parse("vm_stat: failed to get statistics. error 268435459\n") is None


def test_memory_pressure_gives_the_free_share():
    assert memory_pressure.parse(recorded("macos/memory_pressure.txt")) == 0.80
    assert memory_pressure.parse("") is None


def test_sysctl_tells_the_machine_from_the_interpreter():
    assert sysctl.has_apple_silicon(sysctl.parse(recorded("macos/sysctl_hardware.txt")))
    assert not sysctl.has_apple_silicon(sysctl.parse(recorded("macos/sysctl_hardware_intel.txt")))
    assert sysctl.parse(recorded("macos/sysctl_hardware.txt"))["hw.memsize"] == "25769803776"


def test_sysctl_tells_the_last_wake():
    assert sysctl.wake_time(sysctl.parse(recorded("macos/sysctl_wake.txt"))) == 1421576231.039481
    assert sysctl.wake_time(sysctl.parse(recorded("macos/sysctl_wake_never.txt"))) is None
    assert sysctl.wake_time({}) is None


def test_brew_services_are_told_with_their_user():
    found = brew.parse(recorded("macos/brew_services.json"))
    assert found["ollama"] == BrewService("ollama", "started", "root")
    assert found["ollama"].runs
    assert not found["unbound"].runs


@pytest.mark.parametrize("text", ["", "Warning: no services\n", "{}", "[1]", '[{"status": "started"}]'])
def test_brew_services_that_are_none_are_empty(text: str):
    assert brew.parse(text) == {}


def test_ps_of_a_mac_is_read_with_every_form_of_age():
    table = ps.parse(recorded("macos/ps.txt"))
    assert len(table) == len(recorded("macos/ps.txt").splitlines())
    assert table[1] == Process(1, 0, 0, "Ss", ((12 * 24 + 3) * 60 + 14) * 60 + 15, "/sbin/launchd")
    assert table[34808].age_s == 9 * 60 + 35
    assert table[61864].age_s == 3600 + 2 * 60 + 3
    assert table[411].command.endswith("MacOS/Ollama hidden")
    assert [process.pid for process in table.values() if process.is_zombie] == [800]


def test_lsof_of_a_mac_gives_pid_and_user():
    found = parse_lsof(11434, recorded("macos/lsof.txt"))
    assert found == PortHolder(11434, 24901, "ollama", "", "ada")


def test_kernel_log_tells_whom_it_killed_and_why():
    assert kernel_log.kills(recorded("linux/kernel_oom.txt")) == [
        Kill(1778886570.050606, 15784, "python3", 4288 * 1024, by_group=False),
        Kill(1778886577.2811, 18177, "python3", 2563572 * 1024, by_group=True),
    ]


def test_jetsam_report_tells_only_whom_it_killed():
    at = datetime.fromisoformat("2026-04-10T05:05:26-05:00").timestamp()
    found = jetsam.kills(recorded("macos/jetsam.ips"))
    assert found == [Kill(at, 4211, "Python", 3_276_800 * 16_384, by_group=False)]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"timestamp": "today"}\n{}', '{"timestamp": "2026-04-10 05:05:26.00 -0500"}\n[]']
)
def test_jetsam_report_in_another_form_tells_nothing(text: str):
    assert jetsam.kills(text) == []


def test_kernel_log_tells_the_last_wake():
    assert kernel_log.last_wake(recorded("linux/suspend.txt")) == 1778800000.112233
    assert kernel_log.last_wake("") is None
