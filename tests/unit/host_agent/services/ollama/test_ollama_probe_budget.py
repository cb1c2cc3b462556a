"""When a probe of an Ollama model is due: often enough to notice a hung model, and not for ever, because each
probe prolongs the time until Ollama unloads the model.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from host_agent.services.http_probe import Reply
from host_agent.services.ollama.answers import (
    ModelInMemory,
    ModelProbeResult,
    ModelRequest,
    choose_probe_model,
    judge,
    probe_request,
    read_loaded_models,
)
from host_agent.services.ollama.probe_budget import OVERDUE_S, ProbeBudget

KEEP_ALIVE_S = 300.0  # Ollama's default
T0 = 1_800_000_000.0  # the clock of Ollama's server when the monotonic clock of the test is 0
NEVER = T0 + 290 * 365 * 86400
OK = ModelProbeResult(True)
FAILED = ModelProbeResult(False)
SMALL, BIG = (
    ModelInMemory("smollm2:135m", 400, expires_at=T0),
    ModelInMemory("qwen3:8b", 8_000, expires_at=T0),
)


def test_ollama_probe_is_due_at_once_after_a_failure_and_otherwise_after_its_interval():
    fresh = ProbeBudget(interval_s=30)
    assert fresh.is_due(0)
    assert not fresh.asked(0).is_due(100)
    after_success = fresh.asked(0).answered(ModelProbeResult(True), 1)
    assert not after_success.is_due(30)
    assert after_success.is_due(31)
    assert after_success.asked(31).answered(ModelProbeResult(False), 32).is_due(32)


def test_silence_of_ollama_is_measured_from_the_first_unanswered_probe_and_ends_with_an_answer():
    """Otherwise a model that never answers would count as busy for another 15 minutes after each failure."""
    given_up = ProbeBudget().asked(0).given_up()
    assert given_up.is_due(100)
    again = given_up.asked(100)
    assert (again.waited_s(110), again.silent_s(110)) == (10, 110)
    assert again.answered(ModelProbeResult(False), 111).asked(112).silent_s(115) == 3


def test_ollama_probe_is_not_due_within_its_interval_after_no_model_was_in_use():
    idle = ProbeBudget(interval_s=30).asked(0, SMALL.name).answered(OK, 1).found_idle(31)
    assert not idle.is_due(60)
    assert idle.is_due(61)


# --- with the keep-alive of Ollama ------------------------------------------------------------------------


class Scheduler:
    """The keep-alive of Ollama's server/sched.go: a request without one keeps what an earlier request set
    (`useLoadedRunner`), and the time to unload is set at the end of a request (`processCompleted`).
    """

    def __init__(self) -> None:
        self.loads, self.unloaded_at = 0, list[int]()
        self.expires: float | None = None

    def use(self, now: float, takes_s: float, keep_alive: str | None = None) -> None:
        if self.expires is None:
            self.keep_alive_s, self.loads = KEEP_ALIVE_S, self.loads + 1
        if keep_alive is not None:
            self.keep_alive_s = float(keep_alive.removesuffix("s"))
        self.expires = now + takes_s + self.keep_alive_s

    def tick(self, now: int) -> None:
        if self.expires is not None and now >= self.expires:
            self.expires = None
            self.unloaded_at.append(now)

    def loaded(self) -> tuple[ModelInMemory, ...]:
        if self.expires is None:
            return ()
        expires_at = datetime.fromtimestamp(T0 + self.expires, UTC).isoformat()
        listed = {"name": "llama3.1:8b", "size": 5, "context_length": 4096, "expires_at": expires_at}
        return read_loaded_models(Reply(200, {"models": [listed]}))


def an_hour(*, turn_each_s: int, last_turn_s: int = 3600) -> tuple[int, list[int], int]:
    """Return how often the model was loaded, when it was unloaded, and the number of the agent's probes. A
    user's turn comes each `turn_each_s` seconds and takes 5, and the agent checks every 10 seconds.
    """
    ollama, budget, probes = Scheduler(), ProbeBudget(30.0), 0
    for now in range(3600):
        ollama.tick(now)
        if now % turn_each_s == 0 and now <= last_turn_s:
            ollama.use(now, takes_s=5)
        loaded = ollama.loaded()
        if now % 10 != 7:
            continue
        budget = budget.listed(loaded) if loaded else ProbeBudget(30.0)
        if loaded and budget.is_due(now):
            model = choose_probe_model(budget.models_to_probe(loaded, now), None)
            if model is None:
                budget = budget.found_idle(now)
                continue
            ollama.use(now, 0.1, probe_request(model).body.get("keep_alive"))
            created_at = datetime.fromtimestamp(T0 + now, UTC).isoformat()
            reply = Reply(200, {"response": " four", "created_at": created_at})
            budget = budget.asked(now, model.name).answered(judge(ModelRequest("/api/generate"), reply), now)
            probes += 1
    return ollama.loads, ollama.unloaded_at, probes


@pytest.mark.parametrize("turn_each_s", [45, 60, 120, 240])
def test_ollama_model_in_a_conversation_is_loaded_once_although_the_agent_probes_it(turn_each_s: int):
    """Earlier, probes named the remaining time as keep-alive, which Ollama then used for the users' turns:
    7 or 8 loads an hour.
    """
    loads, unloaded_at, probes = an_hour(turn_each_s=turn_each_s)
    assert (loads, unloaded_at) == (1, [])
    assert probes >= 3600 // turn_each_s // 2, "a model in use is probed"


def test_ollama_model_that_is_no_longer_used_is_unloaded_at_most_a_probe_interval_late():
    loads, unloaded_at, probes = an_hour(turn_each_s=60, last_turn_s=600)
    assert loads == 1
    (at,) = unloaded_at
    assert 605 + KEEP_ALIVE_S <= at <= 605 + KEEP_ALIVE_S + 30 + 10


def answered(*models: ModelInMemory, server_time: float = 0.0) -> ProbeBudget:
    """Return a budget after these models have each answered a probe at 0 s, and were listed afterwards."""
    budget = ProbeBudget(30.0)
    for model in models:
        budget = budget.asked(0, model.name).answered(ModelProbeResult(True, server_time=server_time), 0)
    return budget.listed(models)


def test_ollama_model_that_has_answered_is_probed_again_only_after_its_next_use():
    budget = answered(SMALL, BIG)
    assert budget.listed((SMALL, BIG)).models_to_probe((SMALL, BIG), 1000) == ()
    used = ModelInMemory(BIG.name, BIG.size_bytes, expires_at=T0 + 60)
    assert budget.listed((SMALL, used)).models_to_probe((SMALL, used), 40) == (used,)
    reloaded = budget.listed((BIG,)).listed((SMALL, BIG))
    assert reloaded.models_to_probe((SMALL, BIG), 40) == (SMALL,)


def test_ollama_model_that_answered_last_is_chosen_only_among_the_loaded_models():
    budget = ProbeBudget().asked(0, SMALL.name).answered(OK, 1).asked(31, BIG.name).answered(OK, 32)
    assert budget.answered_last((SMALL, BIG)) == BIG
    assert budget.answered_last((SMALL,)) == SMALL
    assert budget.answered_last(()) is None


def test_ollama_model_that_is_never_unloaded_is_probed_at_each_interval():
    permanent = ModelInMemory("m", expires_at=NEVER)
    assert answered(permanent).models_to_probe((permanent,), 30) == (permanent,)


@pytest.mark.parametrize("server_time", [T0 - KEEP_ALIVE_S, 0.0])
def test_ollama_model_that_stays_loaded_beyond_its_unload_time_is_probed(server_time: float):
    """A request that never ends keeps it loaded. Embeddings do not say when they were made."""
    budget = answered(SMALL, server_time=server_time)
    assert budget.models_to_probe((SMALL,), KEEP_ALIVE_S + OVERDUE_S - 1) == ()
    overdue = (SMALL,) if server_time else ()
    assert budget.models_to_probe((SMALL,), KEEP_ALIVE_S + OVERDUE_S + 1) == overdue


def test_ollama_model_that_failed_its_probe_is_probed_again_before_smaller_ones():
    """Otherwise the answers of a small model in use would hide that a big one hangs."""
    for failed in (
        answered(BIG).asked(30, BIG.name).answered(FAILED, 31),
        answered().asked(0, BIG.name).given_up(),
    ):
        assert failed.models_to_probe((SMALL, BIG), 32) == (BIG,)
        assert failed.models_to_probe((SMALL,), 32) == (SMALL,)


def test_ollama_model_whose_queue_is_full_has_not_answered():
    budget = ProbeBudget().asked(0, SMALL.name).answered(ModelProbeResult(True, busy=True), 1)
    assert budget.listed((SMALL,)).models_to_probe((SMALL,), 31) == (SMALL,)
