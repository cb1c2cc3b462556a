"""What `vestal task` prints of a task's progress and end."""

from __future__ import annotations

from typing import Any

from host_agent.cli.orchestrator.task_progress import TaskProgress, result_text


def task(state: str, *steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "t", "state": state, "steps": list(steps), **more}


def test_task_progress_prints_each_change_once():
    progress = TaskProgress()
    running = {"name": "plan", "state": "running", "detail": ""}
    assert progress.new_lines(task("queued")) == ["task t: queued"]
    assert progress.new_lines(task("running", running)) == ["task t: running", "  plan: at work"]
    assert progress.new_lines(task("running", running)) == []
    waiting = {**running, "detail": "waiting: mlx is down"}
    assert progress.new_lines(task("running", waiting)) == ["  plan: waiting: mlx is down"]
    done = {"name": "plan", "state": "done", "started_at": 10.0, "finished_at": 12.5}
    assert progress.new_lines(task("done", done)) == ["task t: done", "  plan: done (2.5 s)"]


def test_task_result_text_has_the_answer_and_its_notes_and_lists_each_source_only_once():
    sources = [{"agent": "docs", "file": "a.md"}, {"agent": "docs", "file": "a.md"}]
    text = result_text(task("done", answer="Yes.", sources=sources, notes=["critic could not answer"]))
    assert text == "Yes.\n\nSources: docs/a.md\n\nNote: critic could not answer"
    assert result_text(task("failed", error="no model")) == "The task failed: no model"
    assert "cancelled" in result_text(task("cancelled"))


def test_task_result_text_loses_control_characters_only():
    answers = ("line\n\ttab é \U0001f426", "\x1b[31mred\x1b]0;title\x07\x9b2J\r \u202egnp")
    first, second = (result_text(task("done", answer=answer)) for answer in answers)
    assert first == "line\n\ttab é \U0001f426"
    assert second == "[31mred]0;title2J gnp"
