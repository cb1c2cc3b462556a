"""From evidence to a finding: cause, level and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.doctor.installation import disk_full, python_build
from host_agent.doctor.memory import oom_killed, wired_memory
from host_agent.doctor.ollama import another_user, processes
from host_agent.doctor.ollama.another_user import Server
from host_agent.doctor.services import orphans
from host_agent.doctor.services.orphans import Ours
from host_agent.doctor.unresponsive import hung, slept
from host_agent.doctor.unresponsive.silent_servers import Silent, by_sleep
from vestal.platform import kernel_log
from vestal.platform.macos import brew, memory_tools
from vestal.platform.memory import Memory
from vestal.platform.processes import ps
from vestal.platform.processes.ps import PsProcess

RECORDED = Path(__file__).resolve().parents[3] / "recorded"
TOTAL = 25_769_803_776
GIB = 1024**3


def wired(name: str) -> Memory:
    found = memory_tools.parse_vm_stat((RECORDED / "macos" / name).read_text())
    assert found
    return Memory(TOTAL, TOTAL // 4, 0, 0, found)


def test_wired_memory_that_has_piled_up_asks_for_a_reboot_and_no_restarts():
    found = wired_memory.judge(wired("vm_stat_wired.txt"), 0.2)
    assert found.level == "fault"
    assert "74%" in found.sentence
    assert "only a reboot" in found.remedy and "stop restarting" in found.remedy
    assert "vm_stat" in found.evidence and "memory_pressure: 20%" in found.evidence


def test_wired_memory_that_living_model_servers_hold_is_no_fault():
    assert wired_memory.judge(wired("vm_stat_wired.txt"), 0.2, held_bytes=12 * GIB).level == "ok"


def test_wired_memory_as_usual_is_well():
    free = memory_tools.parse_memory_pressure((RECORDED / "macos/memory_pressure.txt").read_text())
    assert wired_memory.judge(wired("vm_stat.txt"), free).level == "ok"
    assert wired_memory.judge(wired("vm_stat.txt"), None).level == "ok"


def test_wired_memory_under_pressure_from_elsewhere_asks_for_room():
    found = wired_memory.judge(wired("vm_stat.txt"), 0.05)
    assert found.level == "fault"
    assert "close programs" in found.remedy


@pytest.mark.parametrize(
    ("available", "swap_used", "level"), [(0.02, 0.0, "fault"), (0.02, 1.0, "fault"), (0.5, 1.0, "ok")]
)
def test_available_memory_is_judged_where_nothing_is_wired(available: float, swap_used: float, level: str):
    swap = round(swap_used * GIB)
    found = wired_memory.judge(Memory(TOTAL, round(available * TOTAL), swap, swap))
    assert (found.level, found.evidence) == (level, "")
    assert f"{available:.0%} of the machine's memory is available" in found.sentence


def test_memory_that_swap_makes_room_for_is_no_fault():
    assert wired_memory.judge(Memory(TOTAL, TOTAL // 50, GIB, 8 * GIB)).level == "ok"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (
            Server(502, "root", "ada", brew.BrewService("ollama", "started", "root")),
            "sudo brew services stop",
        ),
        (
            Server(502, "bob", "ada", brew.BrewService("ollama", "started", "bob")),
            "`brew services stop ollama`",
        ),
        (Server(502, "bob", "ada", brew.BrewService("ollama", "none")), "`sudo kill 502`"),
        (Server(502, "ollama", "ada", systemd=True), "systemctl disable --now ollama"),
        (Server(None, "", "ada"), "end it as its user"),
    ],
)
def test_ollama_of_another_user_is_stopped_by_its_keeper_and_started_by_its_owner(server: Server, words: str):
    folder = Path("/Users/ada/.ollama/models")
    found = another_user.judge(set(), {"llama3.2:3b"}, folder, server)
    assert found.level == "fault"
    assert words in found.remedy
    assert found.remedy.endswith("run `ollama serve` as ada")


def test_ollama_of_the_same_user_reads_another_folder():
    found = another_user.judge(set(), {"a:1"}, Path("/m"), Server(502, "ada", "ada"))
    assert found.level == "fault"
    assert "OLLAMA_MODELS" in found.remedy


def test_ollama_that_shows_other_models_than_the_users_is_only_noted():
    found = another_user.judge({"b:1"}, {"a:1"}, Path("/m"), Server(502, "ollama", "ada"))
    assert found.level == "note"
    assert "a:1" in found.evidence


def test_processes_of_ollama_are_told_from_what_only_has_its_name():
    table = ps.parse((RECORDED / "macos/ps.txt").read_text())
    assert [process.pid for process in processes.servers(table)] == [433, 502]
    assert [process.pid for process in processes.orphan_runners(table)] == [61864]
    assert [process.pid for process in processes.lookalikes(table)] == [700]


def test_processes_of_ollama_are_known_in_a_folder_with_a_blank_and_by_all_their_names():
    runner = "/Users/a b/ollama/llama-server --model /Users/a b/.ollama/models/blobs/sha256-1 --port 1"
    table = {
        10: PsProcess(10, 1, 0, "S", 9, "/Users/a b/ollama serve"),
        11: PsProcess(11, 1, 0, "S", 9, runner),
        12: PsProcess(12, 1, 0, "S", 9, "/Users/a b/llama-server --model mine.gguf"),
        13: PsProcess(13, 10, 0, "S", 9, runner),
        14: PsProcess(14, 1, 0, "S", 9, "ollama serving"),
    }
    assert [process.pid for process in processes.servers(table)] == [10]
    assert [process.pid for process in processes.orphan_runners(table)] == [11]


def test_runner_that_systemd_of_the_user_has_taken_in_is_an_orphan():
    table = {
        50: PsProcess(50, 1, 501, "S", 9, "/usr/lib/systemd/systemd --user"),
        60: PsProcess(60, 1, 501, "S", 9, "/bin/zsh -l"),
        61: PsProcess(61, 50, 501, "S", 9, "/usr/local/bin/ollama runner --port 1"),
        62: PsProcess(62, 60, 501, "S", 9, "/usr/local/bin/ollama runner --port 2"),
    }
    assert [process.pid for process in processes.orphan_runners(table)] == [61]


def test_runner_below_a_helper_of_the_server_is_no_orphan():
    table = {
        10: PsProcess(10, 1, 0, "S", 9, "/usr/local/bin/ollama serve"),
        11: PsProcess(11, 10, 0, "S", 9, "sh -c exec"),
        12: PsProcess(12, 11, 0, "S", 9, "/usr/local/bin/ollama runner --port 1"),
    }
    assert processes.orphan_runners(table) == []


GATEWAY, ENGINE = "mlx_server.gateway", "mlx_server.engine"


@pytest.mark.parametrize(
    ("parent", "agent_lives", "recorded", "lost"),
    [
        (1, False, {20}, True),  # the agent was killed and none has come since
        (1, True, {20}, False),  # the next agent has adopted it
        (1, True, {99}, True),  # the next agent has started another
        (5, False, set(), False),  # somebody's shell
        (6, False, {20}, True),  # systemd --user takes orphans in
        (404, False, {20}, True),
    ],
)
def test_gateway_is_an_orphan_where_nobody_looks_after_it(
    parent: int, agent_lives: bool, recorded: set[int], lost: bool
):
    table = {
        1: PsProcess(1, 0, 0, "S", 99, "/sbin/launchd"),
        5: PsProcess(5, 1, 0, "S", 99, "-zsh"),
        6: PsProcess(6, 1, 0, "S", 99, "/lib/systemd/systemd --user"),
        20: PsProcess(20, parent, 0, "S", 9, "python -m mlx_server.gateway"),
    }
    ours = Ours({20: GATEWAY}, recorded, agent_lives)
    assert [process.pid for process in orphans.orphans(table, ours)] == ([20] if lost else [])


def test_engine_below_its_gateway_is_no_orphan_and_without_it_is_one():
    table = {
        20: PsProcess(20, 1, 0, "S", 9, "python -m mlx_server.gateway"),
        21: PsProcess(21, 20, 0, "S", 9, "python -m mlx_server.engine"),
        22: PsProcess(22, 1, 0, "S", 9, "python -m mlx_server.engine"),
    }
    found = orphans.orphans(table, Ours({20: GATEWAY, 21: ENGINE, 22: ENGINE}, {20}, agent_lives=True))
    assert [process.pid for process in found] == [22]


@pytest.mark.parametrize(
    ("started_at", "woke_at", "expected"),
    [(100.0, 200.0, True), (300.0, 200.0, False), (None, 200.0, True), (100.0, None, False)],
)
def test_silence_is_laid_to_sleep_where_it_ran_before_the_wake(
    started_at: float | None, woke_at: float | None, expected: bool
):
    assert by_sleep(Silent("ollama", "http://x", "", 7, started_at), woke_at) is expected


def test_server_that_hangs_since_the_wake_is_restarted_by_its_keeper():
    mine = slept.judge(Silent("mlx_server", "http://x/health", "no answer within 5 s", 7, 100.0), 200.0)
    assert "recover --once" in mine.remedy
    theirs = slept.judge(Silent("ollama", "http://x/api/tags", "it answered 500", 7, 100.0), 200.0)
    assert "`kill 7`, then `ollama serve`" in theirs.remedy
    assert "it answered 500" in theirs.evidence


def test_server_that_is_suspended_is_let_go_on():
    assert hung.judge(Silent("agent", "http://x", "", 7, 1.0, suspended=True)).remedy == "`kill -CONT 7`"


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "level"),
    [(100 * 1024**2, None, "fault"), (2 * GIB, 10, "note"), (50 * GIB, 10, "ok"), (50 * GIB, 0, "fault")],
)
def test_disk_is_judged_by_room_and_by_files(free_bytes: int, free_files: int | None, level: str):
    assert disk_full.judge(Path("/x"), free_bytes, free_files).level == level


@pytest.mark.parametrize(
    ("built_for", "apple", "level", "words"),
    [
        ("arm64", True, "ok", ""),
        ("x86_64", True, "fault", "arm64 Python"),
        ("x86_64", False, "fault", "another machine"),
    ],
)
def test_python_under_rosetta_is_named(built_for: str, apple: bool, level: str, words: str):
    found = python_build.judge(built_for, apple, "/usr/local/bin/python3")
    assert found.level == level
    assert words in found.remedy


def test_engine_that_the_kernel_killed_is_told_with_what_it_held():
    (by_host, by_group) = kernel_log.oom_kills((RECORDED / "linux/kernel_oom.txt").read_text())
    found = oom_killed.by_kernel(by_group, "mlx_engine")
    assert "mlx_engine" in found.sentence and "a memory limit of its own" in found.sentence
    assert "2.4 GiB" in found.evidence
    assert "this machine had no memory left" in oom_killed.by_kernel(by_host, "mlx_engine").sentence


def test_pids_of_services_come_from_their_starts():
    events = [{"component": "mlx_engine", "fields": {"pid": 7}}, {"component": "nightly", "fields": {}}]
    assert oom_killed.pids(events) == {7: "mlx_engine"}
