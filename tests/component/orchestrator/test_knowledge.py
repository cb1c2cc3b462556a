"""Knowledge in real processes: search without a backend, a killed update, a damaged database, notes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.component.orchestrator.conftest import TOKEN, Orchestrator, StandIn, phase, wait_until

Make = Callable[..., Orchestrator]


def write(tmp_path: Path, agent: str = "docs", **files: str) -> Path:
    folder = tmp_path / "knowledge" / agent
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.md").write_text(text)
    return folder


def test_knowledge_search_without_an_embedding_backend_uses_word_search_and_reports_the_fallback(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write(tmp_path, breaker="# Breaker\n\nIt opens after five failures.", other="# Other\n\nNothing here.")
    one = orchestrator(MLX_API_URL=llm.url).start()
    one.cycle("2 changed")
    status, answer = one.ask("/knowledge/search", {"query": "when does it open"})
    assert (status, answer["by"], answer["note"]) == (200, ["meaning", "words"], "")
    llm.end()
    status, answer = one.ask("/knowledge/search", {"query": "after how many failures does it open?"})
    assert status == 200
    assert [(hit["file"], hit["heading"]) for hit in answer["results"]] == [("breaker.md", "Breaker")]
    assert answer["by"] == ["words"]
    assert answer["note"].startswith("found by words alone: ")
    assert one.ask("/knowledge/search", {"query": "failures", "path": "other"})[1]["results"] == []


def test_knowledge_search_is_ranked_by_the_reranker_and_gives_the_reason_if_that_fails(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    long = "The breaker opens after five failures, one after the other, within the time that is set."
    write(tmp_path, long=f"# Breaker\n\n{long}", short="# Breaker\n\nIt opens.")
    llm.control(models=["smollm2:135m", "all-minilm", "ranker"])
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_RERANK_MODEL="ranker").start()
    one.cycle("2 changed")
    query = "when does the breaker open after failures"
    answer = one.ask("/knowledge/search", {"query": query, "k": 1})[1]
    assert (answer["by"], answer["note"]) == (["meaning", "words", "reranker"], "")
    assert [(hit["file"], hit["relevance"]) for hit in answer["results"]] == [("short.md", -3.0)]
    llm.control(reject="breaker open")
    answer = one.ask("/knowledge/search", {"query": query, "k": 1})[1]
    assert [hit["file"] for hit in answer["results"]] == ["long.md"]
    assert answer["note"] == "not ranked by ranker: mlx answers 400: this query is not taken"


def test_task_without_an_embedding_backend_is_answered_from_a_knowledge_search_by_words(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write(tmp_path, breaker="# Breaker\n\nIt opens after five failures.", other="# Other\n\nNothing here.")
    one = orchestrator(MLX_API_URL=llm.url, ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="0.2").start()
    one.cycle("2 changed")
    llm.control(models=["smollm2:135m"])
    one.cycle("has other models")
    task = one.finished(one.submit("How many failures open it?"))
    assert [source["file"] for source in task["sources"]] == ["breaker.md"]
    assert "found by words alone" in json.dumps(task)


def test_knowledge_update_killed_midway_embeds_at_most_one_batch_again_after_the_restart(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write(tmp_path, **{f"f{n:02}": f"text number {n}" for n in range(40)})
    llm.control(delay_s=0.1)
    one = orchestrator(MLX_API_URL=llm.url, VESTAL_EMBED_BATCH="4").start()
    wait_until("a few batches", lambda: len(llm.calls("/api/embed")) >= 3)
    assert one.child
    one.child.end(signal.SIGKILL)
    llm.control(delay_s=0)
    one.start()
    one.cycle("40 files", '"stopped": ""')
    texts = [text for body in llm.calls("/api/embed") for text in body["input"]]
    assert len(set(texts)) == 40
    assert len(texts) <= 44
    assert "knowledge_chunks 40" in one.ask("/metrics")[1]


def test_knowledge_database_damaged_while_running_is_replaced_and_filled_again(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write(tmp_path, a="# A\n\nalpha " + "word " * 100, b="# B\n\nbeta")
    one = orchestrator(MLX_API_URL=llm.url, ORCHESTRATOR_CYCLE_INTERVAL="0.3").start()
    one.cycle("2 changed")
    path = one.home / "orchestrator.db"
    wait_until("the log is written back", lambda: not (one.home / "orchestrator.db-wal").exists())
    with path.open("r+b") as file:  # never cut off: an empty file is an intact database
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    wait_until("it is moved aside", lambda: one.events("database_moved_aside"))
    one.cycle("was corrupt", "was renamed to")
    one.cycle("2 changed")
    assert one.ask("/knowledge/search", {"query": "alpha"})[1]["results"][0]["file"] == "a.md"
    assert list(one.home.glob("orchestrator.db.corrupt-*"))


def test_nightly_run_repeated_without_changes_writes_each_agents_note_once(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write(tmp_path, "ships", a="# Ships\n\nThey sail.")
    write(tmp_path, "trains", b="# Trains\n\nThey roll.")
    one = orchestrator(MLX_API_URL=llm.url).start()
    one.cycle("2 changed")
    for _ in range(2):
        missed(one)
        night = orchestrator(MLX_API_URL=llm.url).start("nightly")
        wait_until("the night's run", partial(night.events, "nightly_run_finished"))
        assert night.child
        night.child.end(signal.SIGTERM)
    notes = one.ask("/knowledge/notes")[1]["notes"]
    assert sorted(notes) == ["ships", "trains"]
    shown = one.ask("/agents")[1]
    assert shown["folders"] == dict.fromkeys(("ships", "trains"), {"files": 1, "passages": 1})
    assert [(agent["name"], agent["searches"]) for agent in shown["agents"]] == [("lead", None)]
    assert len(llm.calls("/api/chat")) == 2


def missed(one: Orchestrator) -> None:
    """Set the time of the last nightly run to long ago, so that the next one is due."""
    program = (
        "import sys; from pathlib import Path; from orchestrator.storage.sqlite import SqliteDatabase;"
        "SqliteDatabase(Path(sys.argv[1])).set_meta('nightly_done_at', '1000000')"
    )
    command = [sys.executable, "-c", program, str(one.home / "orchestrator.db")]
    subprocess.run(command, cwd=one.repo, check=True, timeout=60)


def vestal_search(one: Orchestrator, *arguments: str) -> subprocess.CompletedProcess[str]:
    (one.home / "token").write_text(TOKEN)
    (one.home / "token").chmod(0o600)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VESTAL_")}
    own = {"VESTAL_HOME": str(one.home), "VESTAL_ORCHESTRATOR_PORT": str(one.port)}
    command = [sys.executable, "-m", "host_agent.cli.main", "search", *arguments]
    return subprocess.run(command, env=clean | own, cwd=one.repo, capture_output=True, text=True, timeout=60)


def test_search_command_prints_the_file_and_the_heading_and_the_text_of_each_passage(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write(tmp_path, breaker="# Breaker\n\nIt opens after five failures.")
    one = orchestrator(MLX_API_URL=llm.url).start()
    cycle = one.cycle("1 changed")
    assert phase(cycle, "knowledge")["state"] == "done"
    done = vestal_search(one, "five failures")
    assert done.stdout.splitlines() == [
        "1. docs/breaker.md (Breaker)",
        "    It opens after five failures.",
    ]
    assert done.returncode == 0
    found = json.loads(vestal_search(one, "five", "--json", "-n", "1").stdout)
    assert found["results"][0]["file"] == "breaker.md"
    nothing = vestal_search(one, "five", "--path", "elsewhere/")
    assert (nothing.returncode, nothing.stdout) == (1, "Nothing was found.\n")
    refused = vestal_search(one, "five", "--agent", "nobody")
    assert "The orchestrator refused: There is no agent 'nobody'" in refused.stderr


def test_search_command_without_an_orchestrator_says_how_to_start_it(orchestrator: Make):
    one = orchestrator()
    one.home.mkdir()
    done = vestal_search(one, "anything")
    assert done.returncode == 69
    assert "`vestal up` starts it." in done.stderr
