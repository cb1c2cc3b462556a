from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import TaskFailed
from orchestrator.tasks.view import detail, is_same, summary


def status(state: str, **more: Any) -> SimpleNamespace:
    values = {
        "workflow_id": "id-1",
        "status": state,
        "input": {"args": [{"goal": "g", "agents": ["lead"]}], "kwargs": {}},
        "output": None,
        "error": None,
        "executor_id": "here",
        "created_at": 1000,
        "dequeued_at": None,
        "completed_at": None,
        "attributes": None,
        **more,
    }
    return SimpleNamespace(**values)


@pytest.mark.parametrize(
    ("dbos", "ours"),
    [
        ("ENQUEUED", "queued"),
        ("PENDING", "running"),
        ("SUCCESS", "done"),
        ("ERROR", "failed"),
        ("CANCELLED", "cancelled"),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", "failed"),
    ],
)
def test_task_summary_maps_each_dbos_status_to_a_task_state(dbos: str, ours: str):
    view = summary(status(dbos))
    assert (view["state"], view["goal"], view["agents"], view["created_at"]) == (ours, "g", ["lead"], 1.0)


@pytest.mark.parametrize("state", ["ENQUEUED", "PENDING", "SUCCESS", "ERROR", "CANCELLED"])
@pytest.mark.parametrize("last_run_ms", [None, 9000])
def test_task_summary_shows_when_the_task_first_began_in_each_state(state: str, last_run_ms: int | None):
    """DBOS deletes its own time when a task is cancelled, given up or queued again."""
    assert (
        summary(status(state, attributes={"started_at_ms": 5000}, dequeued_at=last_run_ms))["started_at"]
        == 5.0
    )
    of_earlier_version = summary(status(state, dequeued_at=last_run_ms))["started_at"]
    assert of_earlier_version == (last_run_ms and 9.0)


def test_task_detail_of_a_running_task_shows_the_running_step():
    step = {
        "function_name": "retrieve:lead",
        "started_at_epoch_ms": 1,
        "completed_at_epoch_ms": 2,
        "error": None,
    }
    view = detail(status("PENDING"), [step], {"answer:lead": "waiting: down", "retrieve:lead": ""})
    assert [(s["name"], s["state"]) for s in view["steps"]] == [
        ("retrieve:lead", "done"),
        ("answer:lead", "running"),
    ]
    assert view["answer"] is None


def test_task_detail_of_an_ended_task_has_its_answer_or_error():
    done = detail(status("SUCCESS", output={"answer": "a", "sources": [1], "notes": []}), [], None)
    assert (done["answer"], done["sources"], done["error"]) == ("a", [1], None)
    failed = detail(status("ERROR", error=TaskFailed("no model")), [], None)
    assert failed["error"] == "no model"
    assert "too many workers died" in detail(status("MAX_RECOVERY_ATTEMPTS_EXCEEDED"), [], None)["error"]


def test_task_sent_again_is_the_same_although_another_agent_was_configured_meanwhile():
    """The client named no agent, and got a 409 because the lead alone had been chosen for it."""
    stored = status("SUCCESS", input={"args": [{"goal": "g", "agents": ["lead"], "named": []}], "kwargs": {}})
    assert is_same(stored, {"goal": "g", "agents": [], "named": []})
    assert is_same(stored, {"goal": "g", "agents": ["lead"], "named": ["lead"]})
    assert not is_same(stored, {"goal": "g", "agents": ["reader"], "named": ["reader"]})
    assert not is_same(stored, {"goal": "other", "agents": [], "named": []})
    of_earlier_version = status("SUCCESS")
    assert is_same(of_earlier_version, {"goal": "g", "agents": ["lead"], "named": []})
    assert not is_same(of_earlier_version, {"goal": "g", "agents": [], "named": []})
