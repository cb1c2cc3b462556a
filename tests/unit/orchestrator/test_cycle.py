from __future__ import annotations

import pytest

from orchestrator.cycles.plan import CycleFacts, CyclePhase, down, plan
from orchestrator.llm.backend import Backend, canonical

MODELS = frozenset({"smollm2:135m", "all-minilm:latest"})
GOOD = Backend("mlx", used=True, healthy=True, models=MODELS)
DEAD = Backend("ollama", used=True, healthy=False, detail="no connection")
UNUSED = Backend("ollama", used=False, healthy=False)


def facts(*backends: Backend, **more: object) -> CycleFacts:
    values: dict = {"tasks_waiting": 1, "knowledge_folders": 1, **more}
    return CycleFacts(backends, "smollm2:135m", "all-minilm", **values)


def planned(given: CycleFacts, phase: CyclePhase):
    return next(p for p in plan(given) if p.phase is phase)


def test_nightly_cycle_plan_lists_all_phases_in_order():
    phases = [p.phase for p in plan(facts(GOOD))]
    assert phases == [CyclePhase.HEALTH, CyclePhase.TASKS, CyclePhase.KNOWLEDGE, CyclePhase.REPORT]


@pytest.mark.parametrize("backends", [(GOOD,), (DEAD, GOOD), (GOOD, UNUSED)])
def test_nightly_cycle_with_one_healthy_backend_runs_every_phase(backends: tuple[Backend, ...]):
    assert all(p.run for p in plan(facts(*backends)))


def test_nightly_cycle_with_all_backends_down_skips_phases_and_gives_the_reason():
    for phase, work in ((CyclePhase.KNOWLEDGE, "embeddings"), (CyclePhase.TASKS, "chat")):
        skipped = planned(facts(DEAD, UNUSED), phase)
        assert not skipped.run
        assert f"no healthy backend serves {work}" in skipped.why
        assert "no connection" in skipped.why


def test_nightly_cycle_without_the_embedding_model_skips_only_the_knowledge_phase():
    chat_only = Backend("mlx", used=True, healthy=True, models=frozenset({"smollm2:135m"}))
    assert planned(facts(chat_only), CyclePhase.TASKS).run
    skipped = planned(facts(chat_only), CyclePhase.KNOWLEDGE)
    assert not skipped.run
    assert "without all-minilm" in skipped.why


def test_nightly_cycle_with_memory_near_the_limit_skips_the_knowledge_phase():
    assert planned(facts(GOOD, memory_fraction=0.89), CyclePhase.KNOWLEDGE).run
    skipped = planned(facts(GOOD, memory_fraction=0.93), CyclePhase.KNOWLEDGE)
    assert not skipped.run
    assert "93%" in skipped.why


def test_nightly_cycle_without_tasks_or_knowledge_folders_skips_those_phases():
    idle = facts(GOOD, tasks_waiting=0, knowledge_folders=0)
    assert planned(idle, CyclePhase.TASKS).why == "no task waits"
    assert not planned(idle, CyclePhase.KNOWLEDGE).run


def test_nightly_cycle_with_an_unreadable_knowledge_folder_gives_that_as_the_reason():
    unreadable = facts(GOOD, knowledge_folders=0, knowledge_unreadable="/k: unreadable folder (…)")
    assert planned(unreadable, CyclePhase.KNOWLEDGE).why == "/k: unreadable folder (…)"


def test_backend_that_is_unhealthy_counts_as_down_only_if_it_is_used():
    assert down(facts(GOOD, DEAD)) == ("ollama",)
    assert down(facts(GOOD, UNUSED)) == ()


def test_canonical_model_name_without_a_tag_gets_latest():
    assert canonical("all-minilm") == "all-minilm:latest"
    assert canonical("smollm2:135m") == "smollm2:135m"
