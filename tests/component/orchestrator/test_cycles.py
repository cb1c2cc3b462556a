"""Cycles in a real process: the health phase, skipped phases, the recovery webhook, knowledge and nightly."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests import dashboards
from tests.component.orchestrator.conftest import (
    ORCHESTRATOR,
    TOKEN,
    Orchestrator,
    StandIn,
    call,
    phase,
    wait_until,
)

Make = Callable[..., Orchestrator]


def write_docs(tmp_path: Path, **files: str) -> Path:
    folder = tmp_path / "knowledge" / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).rename(folder / f"{name}.md")  # a cycle never finds half of a file
    return folder


def metric(one: Orchestrator, name: str) -> float:
    lines = one.ask("/metrics")[1].splitlines()
    return float(next(line for line in lines if line.startswith(f"vestal_orchestrator_{name} ")).split()[1])


def test_orchestrators_first_cycle_ends_within_5_s_of_its_start_without_importing_numpy(
    orchestrator: Make, llm: StandIn
):
    took_s = []
    for _ in range(3):  # the quickest start counts: the machine may have had other things to do
        begun = time.monotonic()
        one = orchestrator(MLX_API_URL=llm.url)
        one.program = ORCHESTRATOR
        one.start().cycle()
        took_s.append(time.monotonic() - begun)
        if took_s[-1] < 5:
            break
        one.end()
    assert min(took_s) < 5
    assert one.child
    loaded = Path(f"/proc/{one.child.process.pid}/maps")
    if loaded.exists():  # on Linux: no heavy library is mapped before it is needed
        assert "numpy" not in loaded.read_text()
        rss = [
            x for x in Path(f"/proc/{one.child.process.pid}/status").read_text().splitlines() if "VmHWM" in x
        ]
        assert int(rss[0].split()[1]) < 140 * 1024
    assert dashboards.missing_of("orchestrator", str(one.ask("/metrics")[1])) == set()


def test_cycle_without_an_embedding_backend_skips_the_knowledge_update_and_reports_the_outage_once(
    orchestrator: Make, children: Callable[..., StandIn], free_port: Callable[[], int], tmp_path: Path
):
    write_docs(tmp_path, a="# A\n\nalpha")
    hook = children("webhook_listener.py", "--token", TOKEN)
    hook.control(retry_after_s=300)
    one = orchestrator(
        MLX_API_URL=f"http://127.0.0.1:{free_port()}",
        OLLAMA_BASE_URL=f"http://127.0.0.1:{free_port()}",
        RECOVERY_WEBHOOK_URL=f"{hook.url}/recover",
        ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="0.2",
    ).start()
    cycle = one.cycle()

    assert cycle["duration_s"] < 5
    assert phase(cycle, "knowledge")["state"] == "skipped"
    assert "no healthy backend serves embeddings" in phase(cycle, "knowledge")["why"]
    post = wait_until("the outage is posted", hook.posts)[0]
    assert post["authorized"]
    assert {k: post["body"][k] for k in ("ollama", "mlx")} == {"ollama": False, "mlx": False}
    assert abs(post["body"]["ts"] - time.time()) < 60
    wait_until("the monitor has checked six times", lambda: metric(one, "health_checks_total") > 6)
    assert len(hook.posts()) == 1  # the listener asked for a pause of 300 s


def test_cycle_with_hanging_backends_ends_within_5_s(
    orchestrator: Make, children: Callable[..., StandIn], tmp_path: Path
):
    write_docs(tmp_path, a="# A\n\nalpha")
    hook = children("webhook_listener.py", "--token", TOKEN)
    sick = [children("fake_llm.py") for _ in range(2)]
    for one_sick in sick:
        one_sick.control(mode="hang")
    one = orchestrator(
        MLX_API_URL=sick[0].url, OLLAMA_BASE_URL=sick[1].url, RECOVERY_WEBHOOK_URL=f"{hook.url}/recover"
    )
    one.program = ORCHESTRATOR
    cycle = one.start().cycle()
    assert cycle["duration_s"] < 5
    assert hook.posts()
    assert not sick[0].calls("/api/embed")


def test_cycle_after_a_backend_returns_embeds_the_skipped_files(
    orchestrator: Make, children: Callable[..., StandIn], free_port: Callable[[], int], tmp_path: Path
):
    write_docs(tmp_path, a="# A\n\nalpha")
    port = free_port()
    one = orchestrator(
        MLX_API_URL=f"http://127.0.0.1:{port}", ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="0.5"
    ).start()
    one.cycle("no healthy backend serves embeddings")
    children("fake_llm.py", port=port)
    cycle = one.cycle("mlx is healthy", "1 changed")
    assert cycle["trigger"] == "mlx is healthy"


def test_each_cycle_reports_a_backend_stopped_by_hand_but_only_the_first_calls_the_webhook(
    orchestrator: Make, children: Callable[..., StandIn], free_port: Callable[[], int], llm: StandIn
):
    hook = children("webhook_listener.py", "--token", TOKEN)
    hook.control(services={"ollama": "manual_stop", "mlx": "nonsense"})
    one = orchestrator(
        MLX_API_URL=llm.url,
        OLLAMA_BASE_URL=f"http://127.0.0.1:{free_port()}",
        RECOVERY_WEBHOOK_URL=f"{hook.url}/recover",
        ORCHESTRATOR_CYCLE_INTERVAL="0.3",
    ).start()
    notice = "ollama: it was stopped by hand on the host (`vestal recover --reset` starts it)"
    assert notice in phase(one.cycle("recovery started"), "health")["webhook"]
    later = phase(one.cycle("posted already"), "health")
    assert notice in later["webhook"]
    assert later["why"] == "ollama down"  # it is not absent, because the host agent knows it
    wait_until("six cycles", lambda: metric(one, "cycles_total") > 6)
    assert len(hook.posts()) == 1


def test_webhook_that_refuses_the_token_is_logged_with_the_setting_to_check(
    orchestrator: Make, children: Callable[..., StandIn], free_port: Callable[[], int]
):
    hook = children("webhook_listener.py", "--token", "another")
    one = orchestrator(
        MLX_API_URL=f"http://127.0.0.1:{free_port()}", RECOVERY_WEBHOOK_URL=f"{hook.url}/recover"
    ).start()
    failed = wait_until("it says so", lambda: one.events("recovery_request_failed"))
    assert failed[0]["status"] == 401
    assert "VESTAL_TOKEN" in failed[0]["cause"]


def test_knowledge_update_embeds_changed_files_only_and_removes_deleted_ones(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    folder = write_docs(tmp_path, a="# A\n\nalpha stays", b="# B\n\nbeta goes")
    one = orchestrator(MLX_API_URL=llm.url, ORCHESTRATOR_CYCLE_INTERVAL="0.3").start()
    one.cycle("2 changed")
    before = len(llm.calls("/api/embed"))
    os.utime(folder / "a.md", (1, 1))  # touched, not changed
    (folder / "b.md").unlink()
    write_docs(tmp_path, c="# C\n\ngamma is new")
    one.cycle('"deleted": 1')  # a cycle may come between the two changes
    one.cycle('"changed": 1,')
    inputs = [text for c in llm.calls("/api/embed")[before:] for text in c["input"]]
    assert inputs == ["C\ngamma is new"]
    found = one.ask("/knowledge/search", {"query": "gamma new", "k": 5})[1]["results"]
    assert {hit["file"] for hit in found} == {"a.md", "c.md"}
    assert found[0]["file"] == "c.md"
    assert (
        one.ask("/knowledge/search", {"query": "gamma", "agent": "docs", "k": 1})[1]["results"][0]["agent"]
        == "docs"
    )


def test_knowledge_update_continues_after_the_backend_refuses_a_text_and_its_notes_name_the_file(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write_docs(tmp_path, a="# A\n\nalpha", b="# B\n\npoison", c="# C\n\ngamma")
    llm.control(reject="poison")
    one = orchestrator(MLX_API_URL=llm.url, ORCHESTRATOR_CYCLE_INTERVAL="0.3").start()
    first = phase(one.cycle("3 changed"), "knowledge")
    notice = "docs/b.md: 1 passage(s) found by their words only: mlx answers 400: this text is not taken"
    assert (first["state"], first["stopped"], first["notes"]) == ("done", "", [notice])
    tried = len(llm.calls("/api/embed"))
    later = phase(one.cycle("3 files, 0 changed"), "knowledge")
    assert later["notes"] == [notice]
    assert len(llm.calls("/api/embed")) == tried


def test_nightly_process_started_after_a_missed_hour_embeds_what_the_database_lacks(
    orchestrator: Make, llm: StandIn, tmp_path: Path
):
    write_docs(tmp_path, a="# A\n\nalpha")
    one = orchestrator(MLX_API_URL=llm.url).start()
    one.cycle("1 changed")
    with sqlite3.connect(one.home / "orchestrator.db", timeout=10) as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('nightly_done_at', '1000000')")
        db.execute("DELETE FROM vectors")
    db.close()
    night = orchestrator(MLX_API_URL=llm.url).start("nightly")
    finished = wait_until("the night's run", lambda: night.events("nightly_run_finished"))
    assert "1 chunks embedded" in finished[0]["cause"]
    check = [sys.executable, "-m", "orchestrator", "healthcheck", "nightly"]
    assert subprocess.run(check, env=night.env, cwd=night.repo, timeout=60, check=False).returncode == 0
    assert one.ask("/knowledge/search", {"query": "alpha"})[1]["results"]
    assert night.child
    assert night.child.end(15) == 0
    assert subprocess.run(check, env=night.env, cwd=night.repo, timeout=60, check=False).returncode == 1


def test_orchestrator_refuses_each_invalid_request_with_a_code_and_a_message(
    orchestrator: Make, llm: StandIn
):
    one = orchestrator(MLX_API_URL=llm.url).start()
    refusals = [
        (one.ask("/tasks", b"{not json"), 400, "invalid_json"),
        (one.ask("/tasks", b"[" * 50_000), 400, "invalid_json"),
        (one.ask("/tasks", [1]), 400, "invalid_json"),
        (one.ask("/tasks", {"goal": 7}), 400, "invalid_request"),
        (one.ask("/tasks", {"goal": "  "}), 400, "empty_goal"),
        (one.ask("/tasks", {"goal": "x", "agents": ["nobody"]}), 400, "unknown_agent"),
        (one.ask("/tasks", {"goal": "x", "agents": [{}]}), 400, "unknown_agent"),
        (one.ask("/tasks", {"goal": "x" * 200_000}), 413, "too_large"),
        (one.ask("/tasks/none"), 404, "unknown_task"),
        (one.ask("/tasks/none", method="DELETE"), 404, "unknown_task"),
        (one.ask("/nothing"), 404, "not_found"),
        (one.ask("/tasks", method="PUT"), 405, "method_not_allowed"),
        (one.ask("/cycles?limit=0"), 400, "invalid_request"),
        (one.ask("/knowledge/search", {"query": ""}), 400, "invalid_request"),
        (one.ask("/knowledge/search", {"query": "x", "agent": "nobody"}), 404, "unknown_agent"),
        (call(f"{one.url}/tasks"), 401, "unauthorized"),
        (call(f"{one.url}/tasks", headers={"Authorization": "Bearer wrong"}), 401, "unauthorized"),
        (call(f"{one.url}/nothing"), 401, "unauthorized"),
    ]
    for (status, body), expected, code in refusals:
        assert (status, body["error"]["code"]) == (expected, code)
        assert body["error"]["message"]
    assert call(f"{one.url}/health")[0] == 200
    assert one.ask("/tasks")[1] == {"tasks": []}
    assert not (one.home / "orchestrator-tasks.db").exists()


def test_orchestrator_started_on_a_busy_port_or_with_a_bad_setting_exits_with_78(
    orchestrator: Make, llm: StandIn
):
    one = orchestrator(MLX_API_URL=llm.url).start()
    for env, words in (
        ({"VESTAL_ORCHESTRATOR_PORT": str(one.port)}, "VESTAL_ORCHESTRATOR_PORT"),
        ({"VESTAL_ORCHESTRATOR_PORT": "x"}, "VESTAL_ORCHESTRATOR_PORT"),
        ({"VESTAL_TOKEN": ""}, "VESTAL_TOKEN"),
        ({"VESTAL_HOME": "/proc/none"}, "VESTAL_HOME"),
    ):
        other = {**one.env, "VESTAL_HOME": str(one.tmp / "other"), **env}
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator"],
            env=other,
            cwd=one.repo,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 78, done.stderr
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
