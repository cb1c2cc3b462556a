"""Parsers for the output of macOS tools. tests/recorded/README.md says where each text comes from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from vestal.platform import kernel_log
from vestal.platform.kernel_log import OomKill
from vestal.platform.macos import brew, jetsam, memory_tools, sysctl
from vestal.platform.macos.brew import BrewService
from vestal.platform.ports import parse_lsof
from vestal.platform.processes import ps
from vestal.platform.processes.ps import PsProcess

RECORDED = Path(__file__).resolve().parents[3] / "recorded"


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def test_vm_stat_of_apple_silicon_counts_pages_of_16_kib():
    assert memory_tools.parse_vm_stat(recorded("macos/vm_stat.txt")) == 212_530 * 16_384


def test_vm_stat_of_an_intel_mac_counts_pages_of_4_kib():
    text = recorded("macos/vm_stat.txt").replace("16384", "4096")
    assert memory_tools.parse_vm_stat(text) == 212_530 * 4_096


@pytest.mark.parametrize("text", ["", "vm_stat: failed to get statistics. error 268435459\n"])
def test_vm_stat_output_of_a_failure_is_parsed_as_none(text: str):
    assert memory_tools.parse_vm_stat(text) is None


def test_memory_pressure_output_gives_the_free_fraction_of_memory():
    assert memory_tools.parse_memory_pressure(recorded("macos/memory_pressure.txt")) == 0.80
    assert memory_tools.parse_memory_pressure("") is None


def test_sysctl_recognizes_apple_silicon_under_rosetta_too():
    assert sysctl.has_apple_silicon(sysctl.parse(recorded("macos/sysctl_hardware.txt")))
    assert not sysctl.has_apple_silicon(sysctl.parse(recorded("macos/sysctl_hardware_intel.txt")))
    assert sysctl.parse(recorded("macos/sysctl_hardware.txt"))["hw.memsize"] == "25769803776"


def test_sysctl_output_gives_the_time_of_the_last_wake_or_none():
    assert sysctl.wake_time(sysctl.parse(recorded("macos/sysctl_wake.txt"))) == 1421576231.039481
    assert sysctl.wake_time(sysctl.parse(recorded("macos/sysctl_wake_never.txt"))) is None
    assert sysctl.wake_time({}) is None


def test_brew_services_output_gives_each_service_with_its_user():
    found = brew.parse(recorded("macos/brew_services.json"))
    assert found["ollama"] == BrewService("ollama", "started", "root")
    assert found["ollama"].runs
    assert not found["unbound"].runs


@pytest.mark.parametrize("text", ["", "Warning: no services\n", "{}", "[1]", '[{"status": "started"}]'])
def test_brew_services_output_in_another_form_is_parsed_as_empty(text: str):
    assert brew.parse(text) == {}


def test_ps_output_of_a_mac_is_parsed_with_every_form_of_age():
    table = ps.parse(recorded("macos/ps.txt"))
    assert len(table) == len(recorded("macos/ps.txt").splitlines())
    assert table[1] == PsProcess(1, 0, 0, "Ss", ((12 * 24 + 3) * 60 + 14) * 60 + 15, "/sbin/launchd")
    assert table[34808].age_s == 9 * 60 + 35
    assert table[61864].age_s == 3600 + 2 * 60 + 3
    assert table[411].command.endswith("MacOS/Ollama hidden")
    assert [process.pid for process in table.values() if process.is_zombie] == [800]


def test_lsof_output_of_a_mac_gives_address_and_pid():
    assert parse_lsof(recorded("macos/lsof.txt")) == [("127.0.0.1", 24901)]


def test_kernel_log_parser_returns_each_process_killed_for_memory_and_whether_its_own_limit_was_hit():
    assert kernel_log.oom_kills(recorded("linux/kernel_oom.txt")) == [
        OomKill(1778886570.050606, 15784, "python3", 4288 * 1024, by_own_limit=False),
        OomKill(1778886577.2811, 18177, "python3", 2563572 * 1024, by_own_limit=True),
    ]


def test_jetsam_report_gives_only_the_processes_killed_for_memory():
    at = datetime.fromisoformat("2026-04-10T05:05:26-05:00").timestamp()
    found = jetsam.oom_kills(recorded("macos/jetsam.ips"))
    assert found == [OomKill(at, 4211, "Python", 3_276_800 * 16_384, by_own_limit=False)]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"timestamp": "today"}\n{}', '{"timestamp": "2026-04-10 05:05:26.00 -0500"}\n[]']
)
def test_jetsam_report_in_an_unknown_format_yields_no_killed_processes(text: str):
    assert jetsam.oom_kills(text) == []


def test_kernel_log_gives_the_time_of_the_last_wake_or_none():
    assert kernel_log.last_wake(recorded("linux/suspend.txt")) == 1778800000.112233
    assert kernel_log.last_wake("") is None
