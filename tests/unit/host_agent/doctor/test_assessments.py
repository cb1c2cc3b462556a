"""The pure functions of the doctor: from evidence to a finding's level, sentence and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.doctor.installation import disk_full, engine_blas, python_build
from host_agent.doctor.memory import oom_killed, wired_memory
from host_agent.doctor.ollama import processes
from host_agent.doctor.ollama.another_user import OllamaServer, assess_hidden_models
from host_agent.doctor.services import orphans
from host_agent.doctor.services.orphans import HomeProcesses
from host_agent.doctor.unresponsive import hung
from host_agent.doctor.unresponsive.server_probe import UnresponsiveServer
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


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (
            OllamaServer(502, "root", "ada", brew.BrewService("ollama", "started", "root")),
            "sudo brew services stop",
        ),
        (
            OllamaServer(502, "bob", "ada", brew.BrewService("ollama", "started", "bob")),
            "`brew services stop ollama`",
        ),
        (OllamaServer(502, "bob", "ada", brew.BrewService("ollama", "none")), "`sudo kill 502`"),
        (OllamaServer(502, "ollama", "ada", systemd=True), "systemctl disable --now ollama"),
        (OllamaServer(None, "", "ada"), "Stop it as its user"),
    ],
)
def test_assess_hidden_models_of_another_users_ollama_says_how_to_stop_and_start_it(
    server: OllamaServer, words: str
):
    folder = Path("/Users/ada/.ollama/models")
    found = assess_hidden_models(set(), {"llama3.2:3b"}, folder, server)
    assert found.level == "fault"
    assert words in found.remedy
    assert found.remedy.endswith("run `ollama serve` as ada.")


def test_assess_hidden_models_of_the_same_users_ollama_advises_on_the_folder():
    found = assess_hidden_models(set(), {"a:1"}, Path("/m"), OllamaServer(502, "ada", "ada"))
    assert found.level == "fault"
    assert "OLLAMA_MODELS" in found.remedy


def test_assess_hidden_models_where_ollama_shows_others_is_a_note():
    found = assess_hidden_models({"b:1"}, {"a:1"}, Path("/m"), OllamaServer(502, "ollama", "ada"))
    assert found.level == "note"
    assert "a:1" in found.evidence


def test_processes_of_ollama_are_distinguished_from_similar_names():
    table = ps.parse((RECORDED / "macos/ps.txt").read_text())
    assert [process.pid for process in processes.servers(table)] == [433, 502]
    assert [process.pid for process in processes.orphan_runners(table)] == [61864]
    assert [process.pid for process in processes.lookalikes(table)] == [700]


def test_processes_of_ollama_are_recognized_in_a_path_with_a_blank():
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


def test_orphan_runners_include_one_adopted_by_the_users_systemd():
    table = {
        50: PsProcess(50, 1, 501, "S", 9, "/usr/lib/systemd/systemd --user"),
        60: PsProcess(60, 1, 501, "S", 9, "/bin/zsh -l"),
        61: PsProcess(61, 50, 501, "S", 9, "/usr/local/bin/ollama runner --port 1"),
        62: PsProcess(62, 60, 501, "S", 9, "/usr/local/bin/ollama runner --port 2"),
    }
    assert [process.pid for process in processes.orphan_runners(table)] == [61]


def test_orphan_runners_exclude_a_grandchild_of_the_server():
    table = {
        10: PsProcess(10, 1, 0, "S", 9, "/usr/local/bin/ollama serve"),
        11: PsProcess(11, 10, 0, "S", 9, "sh -c exec"),
        12: PsProcess(12, 11, 0, "S", 9, "/usr/local/bin/ollama runner --port 1"),
    }
    assert processes.orphan_runners(table) == []


GATEWAY, ENGINE = "mlx_server.gateway", "mlx_server.engine"


@pytest.mark.parametrize(
    ("parent", "agent_is_alive", "recorded", "is_orphan"),
    [
        (1, False, {20}, True),  # the agent was killed, and no other started
        (1, True, {20}, False),  # the next agent has adopted it
        (1, True, {99}, True),  # the next agent has started another gateway
        (5, False, set(), False),  # a person's shell started it
        (6, False, {20}, True),  # systemd --user adopts orphans
        (404, False, {20}, True),
    ],
)
def test_orphans_include_a_gateway_that_nobody_supervises(
    parent: int, agent_is_alive: bool, recorded: set[int], is_orphan: bool
):
    table = {
        1: PsProcess(1, 0, 0, "S", 99, "/sbin/launchd"),
        5: PsProcess(5, 1, 0, "S", 99, "-zsh"),
        6: PsProcess(6, 1, 0, "S", 99, "/lib/systemd/systemd --user"),
        20: PsProcess(20, parent, 0, "S", 9, "python -m mlx_server.gateway"),
    }
    ours = HomeProcesses({20: GATEWAY}, recorded, agent_is_alive)
    assert [process.pid for process in orphans.orphans(table, ours)] == ([20] if is_orphan else [])


def test_orphans_include_an_engine_only_without_its_gateway():
    table = {
        20: PsProcess(20, 1, 0, "S", 9, "python -m mlx_server.gateway"),
        21: PsProcess(21, 20, 0, "S", 9, "python -m mlx_server.engine"),
        22: PsProcess(22, 1, 0, "S", 9, "python -m mlx_server.engine"),
    }
    found = orphans.orphans(
        table, HomeProcesses({20: GATEWAY, 21: ENGINE, 22: ENGINE}, {20}, agent_is_alive=True)
    )
    assert [process.pid for process in found] == [22]


@pytest.mark.parametrize(
    ("started_at", "woke_at", "expected"),
    [(100.0, 200.0, True), (300.0, 200.0, False), (None, 200.0, True), (100.0, None, False)],
)
def test_ran_before_wake_compares_start_and_wake(
    started_at: float | None, woke_at: float | None, expected: bool
):
    assert (
        hung.ran_before_wake(UnresponsiveServer("ollama", "http://x", "", 7, started_at), woke_at) is expected
    )


def test_assess_hung_since_sleep_says_who_restarts_the_server():
    mlx_server = UnresponsiveServer("mlx_server", "http://x/health", "no answer within 5 s", 7, 100.0)
    assert "recover --once" in hung.assess_hung_since_sleep(mlx_server, 200.0).remedy
    ollama = UnresponsiveServer("ollama", "http://x/api/tags", "it answered 500", 7, 100.0)
    found = hung.assess_hung_since_sleep(ollama, 200.0)
    assert "`kill 7`, then `ollama serve`" in found.remedy
    assert "it answered 500" in found.evidence


def test_assess_hung_of_a_suspended_server_advises_to_continue_it():
    assert (
        hung.assess_hung(UnresponsiveServer("agent", "http://x", "", 7, 1.0, suspended=True)).remedy
        == "`kill -CONT 7`"
    )


@pytest.mark.parametrize(
    ("free_bytes", "free_files", "level"),
    [(100 * 1024**2, None, "fault"), (2 * GIB, 10, "note"), (50 * GIB, 10, "ok"), (50 * GIB, 0, "fault")],
)
def test_assess_disk_by_free_bytes_and_free_files(free_bytes: int, free_files: int | None, level: str):
    assert disk_full.assess_disk(Path("/x"), free_bytes, free_files).level == level


@pytest.mark.parametrize(
    ("built_for", "apple", "level", "words"),
    [
        ("arm64", True, "ok", ""),
        ("x86_64", True, "fault", "arm64 Python"),
        ("x86_64", False, "fault", "another machine"),
    ],
)
def test_assess_build_of_a_python_not_built_for_arm64_is_a_fault(
    built_for: str, apple: bool, level: str, words: str
):
    found = python_build.assess_build(built_for, apple, "/usr/local/bin/python3")
    assert found.level == level
    assert words in found.remedy


def test_assess_kill_says_which_limit_and_what_the_process_held():
    (by_host, by_group) = kernel_log.oom_kills((RECORDED / "linux/kernel_oom.txt").read_text())
    found = oom_killed.assess_kill(by_group, "mlx_engine")
    assert "mlx_engine" in found.sentence and "a memory limit of its own" in found.sentence
    assert "2.4 GiB" in found.evidence
    assert "this machine had no memory left" in oom_killed.assess_kill(by_host, "mlx_engine").sentence


def test_services_by_pid_reads_start_events():
    events = [{"component": "mlx_engine", "fields": {"pid": 7}}, {"component": "nightly", "fields": {}}]
    assert oom_killed.services_by_pid(events) == {7: "mlx_engine"}


@pytest.mark.parametrize(
    ("blas", "level"),
    [(None, "note"), ("", "fault"), ("MLX's reference BLAS", "fault"), ("none", "fault"), ("OpenBLAS", "ok")],
)
def test_assess_blas_of_the_reference_blas_is_a_fault(blas: str | None, level: str):
    assert engine_blas.assess_blas(blas).level == level
