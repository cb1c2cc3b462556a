"""Plan a cycle from facts: health → tasks → knowledge → report. Pure.

`cycle_runner.py` gathers the facts, carries out the plan, and records both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.llm.backend import Backend

MEMORY_PAUSE_FRACTION = 0.90
ABSENT = "absent (never seen)"


class CyclePhase(StrEnum):
    HEALTH = "health"
    TASKS = "tasks"
    KNOWLEDGE = "knowledge"
    REPORT = "report"


@dataclass(frozen=True)
class CycleFacts:
    """The facts from which a cycle is planned.

    `tasks_waiting` counts unfinished tasks. `knowledge_unreadable` says why there may be more knowledge
    folders than `knowledge_folders` counts; it is "" if all are counted. `memory_fraction` is the used share
    (0 to 1) of the memory limit of this process's container.
    """

    backends: tuple[Backend, ...]
    chat_model: str
    embed_model: str
    tasks_waiting: int = 0
    knowledge_folders: int = 0
    knowledge_unreadable: str = ""
    memory_fraction: float = 0.0


@dataclass(frozen=True)
class Planned:
    """One phase of a cycle: whether it is to run, and why or why not."""

    phase: CyclePhase
    run: bool
    why: str


@dataclass(frozen=True)
class Outcome:
    """The result of a phase: its state, the reason in words, and further values for the cycle's record."""

    phase: CyclePhase
    state: str  # done | skipped | failed
    why: str
    figures: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return {"phase": str(self.phase), "state": self.state, "why": self.why, **self.figures}


def plan(facts: CycleFacts) -> tuple[Planned, ...]:
    """Return the phases in their order, each with whether it is to run and why."""
    return (
        Planned(CyclePhase.HEALTH, True, "at the start of every cycle"),
        _tasks(facts),
        _knowledge(facts),
        Planned(CyclePhase.REPORT, True, "every cycle is recorded"),
    )


def down(facts: CycleFacts) -> tuple[str, ...]:
    """Return the names of the backends that are down. Backends that are unused or were never seen do not
    count.
    """
    return tuple(b.name for b in facts.backends if b.down)


def health_sentence(facts: CycleFacts) -> str:
    """Return the result of the health check in words: which backends are down, and which were never seen."""
    unhealthy = down(facts)
    absent = [f"{b.name}: {ABSENT}" for b in facts.backends if b.absent]
    return "; ".join([f"{', '.join(unhealthy)} down" if unhealthy else "all healthy", *absent])


def _tasks(facts: CycleFacts) -> Planned:
    if facts.tasks_waiting == 0:
        return Planned(CyclePhase.TASKS, False, "no task waits")
    if not _served(facts, facts.chat_model):
        why = f"{_nobody_serves(facts, 'chat', facts.chat_model)}; {facts.tasks_waiting} task(s) wait for one"
        return Planned(CyclePhase.TASKS, False, why)
    return Planned(CyclePhase.TASKS, True, f"{facts.tasks_waiting} task(s) to work on")


def _knowledge(facts: CycleFacts) -> Planned:
    if facts.knowledge_folders == 0:
        why = facts.knowledge_unreadable or "no agent has a knowledge folder"
        return Planned(CyclePhase.KNOWLEDGE, False, why)
    if not _served(facts, facts.embed_model):
        return Planned(CyclePhase.KNOWLEDGE, False, _nobody_serves(facts, "embeddings", facts.embed_model))
    if facts.memory_fraction >= MEMORY_PAUSE_FRACTION:
        why = f"memory is at {facts.memory_fraction:.0%} of the limit; embedding waits until some is free"
        return Planned(CyclePhase.KNOWLEDGE, False, why)
    return Planned(CyclePhase.KNOWLEDGE, True, f"{facts.knowledge_folders} knowledge folder(s) to look at")


def _served(facts: CycleFacts, model: str) -> bool:
    return any(b.serves(model) for b in facts.backends)


def _nobody_serves(facts: CycleFacts, work: str, model: str) -> str:
    states = "; ".join(f"{b.name}: {_state(b, model)}" for b in facts.backends)
    return f"no healthy backend serves {work} with {model} ({states})"


def _state(backend: Backend, model: str) -> str:
    if not backend.used:
        return "not used"
    if backend.absent:
        return ABSENT
    if not backend.healthy:
        return f"down, {backend.detail}" if backend.detail else "down"
    return f"healthy, without {model}"
