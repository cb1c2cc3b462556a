"""List what `make bench` can measure: the scenarios, in the order of a run, and the single measurements.

Each module of a scenario defines it as `SCENARIO`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from benchmarks.scenario import Scenario

MODULES: tuple[str, ...] = (
    "benchmarks.serving.killed",
    "benchmarks.serving.throughput",
    "benchmarks.serving.warm_restart",
    "benchmarks.serving.drafting",
    "benchmarks.serving.pace",
    "benchmarks.serving.mixed_lengths",
    "benchmarks.serving.stream_pause",
    "benchmarks.serving.embeddings",
    "benchmarks.loading.reload",
    "benchmarks.agent.recovery",
    "benchmarks.supervision",
    "benchmarks.orchestrator.durable",
    "benchmarks.faults.run",  # takes hours
)


@dataclass(frozen=True)
class Single:
    """A measurement that is not part of a run. A run compares Vestal with peers, which are other programs;
    this measurement has no peers: it measures Vestal alone, or compares Vestal with itself. `module` is the
    Python module that measures, and `about` says what it measures.
    """

    module: str
    about: str


SINGLE = {
    "steady_memory": Single(
        "benchmarks.gateway.steady_memory", "what engine and gateway hold after thousands of short requests"
    ),
    "retrieval": Single(
        "benchmarks.knowledge.retrieval",
        "recall@5 of the knowledge search on docs/, compared with full text alone; with a reranker",
    ),
    "knowledge": Single(
        "benchmarks.knowledge.speed", "speed and size of the knowledge search and its re-check"
    ),
    "orchestrator": Single(
        "benchmarks.orchestrator",
        "its container: start, memory, 50,000 chunks, 50 tasks, thousands of cycles",
    ),
    "wire": Single(
        "benchmarks.gateway.wire", "encoding and decoding of a message between gateway and engine"
    ),
    "answer_log": Single(
        "benchmarks.gateway.answer_log",
        "what it costs to write answers down, with a fast engine and with the real one",
    ),
    "page": Single(
        "benchmarks.agent.page", "first paint and size of the page, and what an open page costs the agent"
    ),
}


def scenarios() -> dict[str, Scenario]:
    """Return the scenarios by name, in the order of a run."""
    return {scenario.name: scenario for _, scenario in _imported()}


def module_names() -> dict[str, str]:
    """Return the module of each scenario and single measurement by name. `python -m MODULE` runs it."""
    modules = {name: single.module for name, single in SINGLE.items()}
    return modules | {scenario.name: module for module, scenario in _imported()}


def _imported() -> list[tuple[str, Scenario]]:
    return [(module, importlib.import_module(module).SCENARIO) for module in MODULES]
