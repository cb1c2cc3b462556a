"""Assessing Ollama: models that it does not show, and how its processes are recognized."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.doctor.ollama import processes
from host_agent.doctor.ollama.another_user import OllamaServer, assess_hidden_models
from vestal.platform.macos import brew
from vestal.platform.processes import ps
from vestal.platform.processes.ps import PsProcess

RECORDED = Path(__file__).resolve().parents[3] / "recorded"


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
def test_doctor_says_how_to_restart_another_users_ollama_that_hides_models(server: OllamaServer, words: str):
    folder = Path("/Users/ada/.ollama/models")
    found = assess_hidden_models(set(), {"llama3.2:3b"}, folder, server)
    assert found.level == "fault"
    assert words in found.remedy
    assert found.remedy.endswith("run `ollama serve` as ada.")


def test_doctor_advises_to_change_the_variable_ollama_models_if_an_ollama_of_this_user_reads_another_folder():
    found = assess_hidden_models(set(), {"a:1"}, Path("/m"), OllamaServer(502, "ada", "ada"))
    assert found.level == "fault"
    assert "OLLAMA_MODELS" in found.remedy


def test_doctor_reports_hidden_models_only_as_a_note_if_ollama_shows_other_models():
    found = assess_hidden_models({"b:1"}, {"a:1"}, Path("/m"), OllamaServer(502, "ollama", "ada"))
    assert found.level == "note"
    assert "a:1" in found.evidence


def test_ollama_processes_are_distinguished_from_programs_with_similar_names():
    table = ps.parse((RECORDED / "macos/ps.txt").read_text())
    assert [process.pid for process in processes.servers(table)] == [433, 502]
    assert [process.pid for process in processes.orphan_runners(table)] == [61864]
    assert [process.pid for process in processes.lookalikes(table)] == [700]


def test_ollama_processes_are_recognized_in_a_path_with_a_space():
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


def test_orphan_ollama_runners_include_one_adopted_by_the_users_systemd():
    table = {
        50: PsProcess(50, 1, 501, "S", 9, "/usr/lib/systemd/systemd --user"),
        60: PsProcess(60, 1, 501, "S", 9, "/bin/zsh -l"),
        61: PsProcess(61, 50, 501, "S", 9, "/usr/local/bin/ollama runner --port 1"),
        62: PsProcess(62, 60, 501, "S", 9, "/usr/local/bin/ollama runner --port 2"),
    }
    assert [process.pid for process in processes.orphan_runners(table)] == [61]


def test_orphan_ollama_runners_exclude_a_grandchild_of_the_server():
    table = {
        10: PsProcess(10, 1, 0, "S", 9, "/usr/local/bin/ollama serve"),
        11: PsProcess(11, 10, 0, "S", 9, "sh -c exec"),
        12: PsProcess(12, 11, 0, "S", 9, "/usr/local/bin/ollama runner --port 1"),
    }
    assert processes.orphan_runners(table) == []
