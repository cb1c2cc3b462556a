from __future__ import annotations

from typing import Any

from host_agent.cli.orchestrator.task_progress import Progress, ending, printable


def task(state: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "t", "state": state, "steps": list(steps), **more}


def test_progress_tells_each_change_once():
    progress = Progress()
    running = {"name": "plan", "state": "running", "detail": ""}
    assert progress.lines(task("queued")) == ["task t: queued"]
    assert progress.lines(task("running", running)) == ["task t: running", "  plan: at work"]
    assert progress.lines(task("running", running)) == []
    waiting = {**running, "detail": "waiting: mlx is down"}
    assert progress.lines(task("running", waiting)) == ["  plan: waiting: mlx is down"]
    done = {"name": "plan", "state": "done", "started_at": 10.0, "finished_at": 12.5}
    assert progress.lines(task("done", done)) == ["task t: done", "  plan: done (2.5 s)"]


def test_ending_has_the_answer_its_sources_once_and_the_notes():
    sources = [{"agent": "docs", "file": "a.md"}, {"agent": "docs", "file": "a.md"}]
    said = ending(task("done", answer="Yes.", sources=sources, notes=["critic could not answer"]))
    assert said == "Yes.\n\nSources: docs/a.md\n\nNote: critic could not answer"
    assert ending(task("failed", error="no model")) == "It failed: no model"
    assert "cancelled" in ending(task("cancelled"))


def test_printable_keeps_text_and_drops_what_commands_a_terminal():
    assert printable("line\n\ttab é \U0001f426") == "line\n\ttab é \U0001f426"
    assert printable("\x1b[31mred\x1b]0;title\x07\x9b2J\r") == "[31mred]0;title2J"
