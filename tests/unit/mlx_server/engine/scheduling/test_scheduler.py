"""Requests on their way through the whole scheduler, over fake models."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.memory.wait_policy import OTHERS_S, RETRY_S
from mlx_server.engine.scheduling import scheduler
from mlx_server.engine.scheduling.request import RequestStatus
from mlx_server.engine.scheduling.scheduler import TOGETHER_S
from mlx_server.protocol import (
    Cancel,
    Done,
    Embedding,
    Failed,
    Load,
    Loaded,
    Loading,
    Ready,
    Shutdown,
    Unload,
    Unloaded,
)
from tests.unit.mlx_server.engine.scheduling.fake_backend import (
    CHAT,
    EMBED,
    OTHER_CHAT,
    FakeEngine,
    embed,
    generate,
)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def loaded() -> FakeEngine:
    """Return an engine with two chat models in memory."""
    engine = FakeEngine(max_loaded_models=3)
    engine.send(Load("load", CHAT), Load("load other", OTHER_CHAT))
    engine.turn(8)
    assert engine.answer("load") and engine.answer("load other")
    engine.events.clear()
    return engine


def of(engine: FakeEngine, *kinds: type) -> list:
    return [event for event in engine.events if isinstance(event, kinds)]


def test_engine_reports_ready_only_after_the_results_of_all_preloads():
    engine = FakeEngine(preload=[CHAT, "nobody:latest", EMBED])
    engine.scheduler.preload()
    engine.turn(8)
    (ready,) = of(engine, Ready)
    assert set(ready.loaded) == {CHAT, EMBED}
    before = engine.events[: engine.events.index(ready)]
    assert {event.id for event in before if isinstance(event, (Loaded, Failed))} == {
        f"preload/{name}" for name in (CHAT, "nobody:latest", EMBED)
    }


def test_engine_without_preloads_is_ready_at_once(engine):
    engine.turn()
    assert of(engine, Ready) == [engine.events[0]]


def test_request_for_an_unloaded_model_loads_it_and_reports_progress_and_load_time(engine):
    engine.send(generate("a"))
    engine.turn(5)
    assert [event.fraction for event in of(engine, Loading)] == [0.0, 0.9]
    (event,) = of(engine, Loaded)
    assert (event.id, event.model) == (None, CHAT)
    assert event.load_s > 0
    assert engine.answer("a").reason == "length"


def test_generations_start_first_come_first_served_across_models(loaded):
    loaded.guard.places = 1
    loaded.send(generate("a", steps=3), generate("b", OTHER_CHAT), generate("c", CHAT), generate("d", CHAT))
    for _ in range(20):
        loaded.turn()
        loaded.now += RETRY_S
    assert loaded.started == ["a", "b", "c", "d"]
    assert all(isinstance(loaded.answer(id), Done) for id in "abcd")


def test_generation_that_waited_too_long_for_memory_is_refused_and_the_next_one_is_tried(loaded):
    loaded.guard.places = 0
    loaded.send(generate("a"), generate("b"))
    loaded.turn()
    assert loaded.status("a") is RequestStatus.WAITING_FOR_MEMORY
    loaded.now += 120.0
    loaded.turn()
    assert loaded.answer("a").code == "insufficient_memory"
    assert loaded.status("b") is RequestStatus.WAITING_FOR_MEMORY
    loaded.guard.places = 1
    loaded.now += RETRY_S
    loaded.turn()
    assert loaded.answer("b").reason == "length"


def test_unusable_grammar_fails_only_its_own_request(loaded):
    loaded.send(generate("bad", json_schema={}), generate("good", json_schema={}))
    loaded.turn()
    assert loaded.status("bad") is loaded.status("good") is RequestStatus.PREPARING
    loaded.end_job("bad", RequestError("invalid_request", "no such schema"))
    loaded.end_job("good")
    loaded.turn()
    assert loaded.answer("bad").code == "invalid_request"
    assert loaded.answer("good").reason == "length"


def test_slow_tokenization_of_a_prompt_delays_no_other_model_and_no_running_request(loaded):
    """A template with nested loops once blocked all streams for 133 s."""
    loaded.guard.places = 3
    loaded.send(generate("running", steps=99))
    loaded.turn()
    loaded.send(generate("slow", slow=True), generate("beside", OTHER_CHAT), generate("behind", CHAT))
    loaded.turn(3)
    assert loaded.status("slow") is RequestStatus.TOKENIZING
    assert loaded.answer("beside").reason == "length"
    assert loaded.started == ["running", "beside", "behind"]
    loaded.end_tokenization("slow")
    loaded.turn()
    assert loaded.answer("slow").reason == "length"


def test_prompts_that_arrive_together_are_processed_in_one_step_if_no_answer_runs(loaded, monkeypatch):
    """The first of eight prompts once began alone, and the other seven waited for its whole step."""
    monkeypatch.setattr(scheduler, "TOGETHER_S", 60.0)  # the timer's thread may be late on a busy machine
    loaded.guard.places = 3
    loaded.send(generate("first", steps=99), generate("second", steps=99, slow=True))

    def make_tokens() -> None:
        loaded.send(generate("third", steps=99))
        loaded.end_tokenization("second")

    threading.Timer(0.005, make_tokens).start()
    loaded.turn()
    assert loaded.requests is not None
    assert {request.id for request in loaded.requests.select(RequestStatus.RUNNING)} == {
        "first",
        "second",
        "third",
    }


def test_request_starts_after_a_short_wait_although_an_earlier_request_is_slow_to_prepare(loaded):
    loaded.guard.places = 3
    began_s = time.monotonic()
    loaded.send(generate("first", json_schema={}), generate("slow", slow=True), generate("second"))
    loaded.turn()
    assert time.monotonic() - began_s >= TOGETHER_S
    assert (loaded.answer("second").reason, loaded.status("first")) == ("length", RequestStatus.PREPARING)


def test_prompt_whose_tokenization_fails_fails_only_its_request(loaded):
    loaded.send(generate("bad", slow=True), generate("good", slow=True), embed("text"))
    loaded.turn()
    loaded.end_tokenization("bad", RequestError("invalid_request", "The chat template took too long."))
    loaded.end_tokenization("good")
    loaded.turn(5)
    assert loaded.answer("bad").code == "invalid_request"
    assert loaded.answer("good").reason == "length"
    assert isinstance(loaded.answer("text"), Embedding)


def test_request_that_only_counts_tokens_does_not_wait_for_memory(loaded):
    loaded.guard.places = 0
    loaded.send(generate("waits"), generate("counted", count_only=True))
    loaded.turn()
    assert loaded.answer("counted").usage.prompt_tokens == 1
    assert loaded.status("waits") is RequestStatus.WAITING_FOR_MEMORY


def test_model_is_not_unloaded_while_one_of_its_prompts_is_being_tokenized(loaded):
    loaded.send(generate("slow", OTHER_CHAT, slow=True))
    loaded.turn()
    loaded.now += 61.0
    loaded.turn()
    assert [event.model for event in of(loaded, Unloaded)] == [CHAT]
    loaded.end_tokenization("slow")
    loaded.turn()
    assert loaded.answer("slow").reason == "length"


def test_prompt_waiting_for_memory_is_tokenized_again_if_its_model_was_reloaded_meanwhile(loaded):
    """The model's files may have changed, and the old prompt would keep the old tokenizer in memory."""
    loaded.guard.places, loaded.guard.evicts_idle_models = 1, True
    loaded.send(generate("first", steps=9), generate("next"), generate("second", OTHER_CHAT))
    loaded.turn()
    made_first = loaded.prompts["second"]
    assert [event.model for event in of(loaded, Unloaded)] == [OTHER_CHAT]
    loaded.guard.evicts_idle_models = False
    loaded.send(Load("again", OTHER_CHAT))
    loaded.turn(5)
    for _ in range(9):
        loaded.now += RETRY_S
        loaded.turn()
    assert loaded.answer("second").reason == "length"
    assert loaded.prompts["second"] is not made_first


def test_requests_being_tokenized_at_shutdown_are_completed_if_the_drain_time_allows(loaded):
    loaded.send(generate("slow", slow=True), Shutdown(5.0))
    drain_s = loaded.scheduler.run()
    loaded.scheduler.hand_back_waiting()
    loaded.end_tokenization("slow")
    assert loaded.scheduler.drain(drain_s) == 0
    assert loaded.answer("slow").reason == "length"


def test_model_whose_runner_cannot_be_created_fails_only_its_requests():
    engine = FakeEngine()
    engine.runners_broken = True
    engine.send(generate("a"))
    engine.turn(5)
    assert engine.answer("a").code == "model_load_failed"
    engine.runners_broken = False
    engine.send(generate("b"))
    engine.turn(5)
    assert engine.answer("b").reason == "length"


def test_model_with_damaged_weights_is_unloaded_and_its_requests_fail_with_the_reason(loaded):
    loaded.send(generate("runs", steps=99), generate("other", OTHER_CHAT, steps=2))
    loaded.turn()
    loaded.verification.damaged = [(CHAT, "/m/model.safetensors: it has changed; fetch the model again")]
    loaded.turn(5)
    failed = loaded.answer("runs")
    assert failed.code == "model_load_failed" and "model.safetensors: it has changed" in failed.message
    (unloaded,) = of(loaded, Unloaded)
    assert unloaded.model == CHAT and unloaded.damage == failed.message
    assert loaded.answer("other").reason == "length"


def test_damage_found_in_a_model_that_is_already_unloaded_sends_no_event(loaded):
    loaded.verification.damaged = [("gone:latest", "damaged")]
    loaded.turn()
    assert not of(loaded, Unloaded)


def test_weights_of_a_model_are_verified_after_its_first_answer_and_not_before(loaded):
    loaded.send(generate("slow", slow=True))
    loaded.turn(2)
    assert loaded.verification.have_answered == []
    loaded.end_tokenization("slow")
    loaded.turn(3)
    assert loaded.verification.have_answered == [CHAT]


def test_request_of_a_kind_that_its_model_cannot_serve_fails_with_its_error_code(loaded):
    loaded.send(embed("a", CHAT), generate("b", EMBED))
    loaded.turn(5)
    assert loaded.answer("a").code == loaded.answer("b").code == "invalid_request"


@pytest.mark.parametrize(
    "status",
    [
        RequestStatus.WAITING_FOR_MODEL,
        RequestStatus.TOKENIZING,
        RequestStatus.WAITING_FOR_MEMORY,
        RequestStatus.PREPARING,
        RequestStatus.RUNNING,
    ],
)
def test_cancelled_request_in_any_status_is_answered_once_and_frees_its_resources(status):
    engine = FakeEngine()
    if status is RequestStatus.WAITING_FOR_MODEL:
        engine.guard.can_load = False
    elif status is RequestStatus.WAITING_FOR_MEMORY:
        engine.guard.places = 0
    schema: dict | None = {} if status is RequestStatus.PREPARING else None
    engine.send(generate("a", steps=99, slow=status is RequestStatus.TOKENIZING, json_schema=schema))
    engine.turn(5)
    if status is not RequestStatus.WAITING_FOR_MODEL:
        assert engine.status("a") is status
    engine.send(Cancel("a"), Cancel("a"))
    engine.turn(3)
    assert engine.answer("a").reason == "cancelled"
    assert engine.status("a") is RequestStatus.FINISHED
    engine.guard.can_load, engine.guard.places = True, 1
    engine.now += RETRY_S
    engine.send(generate("b"))
    engine.turn(5)
    assert engine.answer("b").reason == "length"


def test_cancel_of_an_unknown_request_sends_no_event(loaded):
    loaded.send(Cancel("nobody"))
    loaded.turn()
    assert loaded.events == []


def test_request_with_an_id_in_use_is_refused_and_the_first_continues(loaded):
    loaded.send(generate("a", steps=2), generate("a"))
    loaded.turn(3)
    failed, done = loaded.answers("a")
    assert isinstance(failed, Failed) and failed.code == "invalid_request"
    assert isinstance(done, Done) and done.usage.completion_tokens == 2


def test_unload_of_a_busy_model_waits_until_its_requests_are_done(loaded):
    loaded.send(generate("a", steps=3), Unload("go", CHAT), Unload("nobody", "nobody"))
    loaded.turn(4)
    done, unloaded = loaded.answer("a"), next(e for e in of(loaded, Unloaded) if e.id == "go")
    assert loaded.events.index(done) < loaded.events.index(unloaded)
    assert {event.id for event in of(loaded, Unloaded)} == {"go", "nobody"}


def test_idle_model_expires_unless_a_request_for_it_is_next_to_get_memory(loaded):
    loaded.guard.places = 0
    loaded.send(generate("a"))
    loaded.turn()
    loaded.now += 61.0
    loaded.turn()
    assert [event.model for event in of(loaded, Unloaded)] == [OTHER_CHAT]
    loaded.guard.places = 1
    loaded.now += RETRY_S
    loaded.turn()
    assert loaded.answer("a").reason == "length"


def test_model_does_not_expire_while_a_request_for_it_waits_for_memory_behind_others(loaded):
    """With a keep-alive of 0, it was unloaded and loaded again in turn, and its request was never served."""
    loaded.guard.places = 1
    loaded.send(generate("r0", steps=40), generate("r1", steps=40), generate("x", OTHER_CHAT, keep_alive_s=0))
    others = 2
    while loaded.answers("x") == [] and others < 20:
        loaded.turn()
        loaded.now += 0.05
        if sum(loaded.status(f"r{n}") is not RequestStatus.FINISHED for n in range(others)) < 2:
            loaded.send(generate(f"r{others}", steps=40))
            others += 1
    assert loaded.answer("x").reason == "length"
    assert others < 6
    loaded.turn()
    assert [event.model for event in of(loaded, Unloaded)] == [OTHER_CHAT]


def test_unload_of_a_model_waits_for_its_requests_that_wait_for_memory(loaded):
    loaded.guard.places = 1
    loaded.send(generate("running", steps=5), generate("next"), generate("x", OTHER_CHAT))
    loaded.turn()
    loaded.send(Unload("go", OTHER_CHAT))
    for _ in range(12):
        loaded.now += RETRY_S
        loaded.turn()
    (unloaded,) = of(loaded, Unloaded)
    assert loaded.events.index(loaded.answer("x")) < loaded.events.index(unloaded)
    assert of(loaded, Loaded) == []


def waiting_engine(**guard: bool | int) -> FakeEngine:
    """Return an engine with room for one model, on which a request for that model waits for memory."""
    engine = FakeEngine(max_loaded_models=1)
    engine.guard.places = 0
    for name, value in guard.items():
        setattr(engine.guard, name, value)
    engine.send(generate("a", CHAT))
    engine.turn(4)
    assert engine.status("a") is RequestStatus.WAITING_FOR_MEMORY
    return engine


def test_two_requests_that_wait_for_memory_do_not_unload_each_others_models():
    """Two such requests once had each other's model unloaded every 0.4 s, and were never answered."""
    engine = waiting_engine(held_by_requests=False)  # other programs hold the memory
    engine.send(generate("b", OTHER_CHAT))
    began = engine.now
    while len(engine.answers("a") + engine.answers("b")) < 2 and engine.now < began + 60.0:
        engine.turn()
        engine.now += 0.05
    assert engine.answer("a").code == engine.answer("b").code == "insufficient_memory"
    assert [event.model for event in of(engine, Loaded)] == [CHAT, OTHER_CHAT]


def test_waiting_time_of_a_request_is_not_reset_if_its_model_is_loaded_again():
    engine = waiting_engine(held_by_requests=False)
    began = engine.now
    while not engine.answers("a") and engine.now < began + 60.0:
        engine.verification.damaged = [(CHAT, "damaged")]  # so it is unloaded whoever waits
        engine.turn()
        engine.now += 0.5
    assert engine.answer("a").code == "insufficient_memory"
    assert engine.now - began < 2 * OTHERS_S


def test_request_whose_model_was_unloaded_while_it_waited_reloads_it(loaded):
    loaded.guard.evicts_idle_models = True  # the first one takes the memory of the second one's model
    loaded.send(generate("first"), generate("second", OTHER_CHAT))
    loaded.turn()
    assert [event.model for event in of(loaded, Unloaded)] == [OTHER_CHAT]
    for _ in range(8):
        loaded.now += RETRY_S
        loaded.turn()
    assert loaded.answer("first").reason == loaded.answer("second").reason == "length"
    assert [event.model for event in of(loaded, Loaded)] == [OTHER_CHAT]


def test_requests_of_a_model_evicted_right_after_its_load_are_all_answered_later():
    """An earlier generation may evict the new model before all requests that waited for it have started."""
    engine = FakeEngine(max_loaded_models=3)
    engine.send(Load("load", CHAT))
    engine.turn(5)
    engine.guard.evicts_idle_models, engine.guard.places = True, 0
    engine.send(generate("first"))
    engine.turn()
    engine.send(generate("wrong kind", EMBED), embed("second"))
    engine.turn(2)
    engine.guard.places = 1
    for _ in range(12):
        engine.now += RETRY_S
        engine.turn()
    assert engine.answer("first").reason == "length"
    assert engine.answer("wrong kind").code == "invalid_request"
    assert isinstance(engine.answer("second"), Embedding)


def test_shutdown_hands_back_waiting_requests_at_once_and_running_ones_after_the_drain_time():
    engine = FakeEngine(drain_s=1.0)
    engine.send(generate("running", steps=1000), generate("long", steps=1000))
    engine.turn(5)
    engine.send(generate("waits"), generate("elsewhere", OTHER_CHAT), Shutdown(), generate("late"))
    drain_s = engine.scheduler.run()
    engine.events.clear()
    engine.scheduler.hand_back_waiting()
    assert [(event.id, event.code) for event in of(engine, Failed)] == [
        ("elsewhere", "engine_unavailable"),
        ("waits", "engine_unavailable"),
    ]
    engine.send(generate("later"), Cancel("running"), Shutdown(0.0))
    assert engine.scheduler.drain(drain_s) == 1
    engine.scheduler.persist_caches(1.0)
    engine.scheduler.hand_back_running()
    engine.scheduler.unload_models()
    assert engine.answer("later").retryable
    assert engine.answer("running").reason == "cancelled"
    long = engine.answer("long")
    assert (long.code, long.retryable) == ("engine_unavailable", True)
    assert of(engine, Unloaded) == []


def test_second_shutdown_may_shorten_but_never_lengthen_the_drain_time(engine):
    engine.send(Shutdown(10.0), Shutdown(99.0))
    assert engine.scheduler.run() == pytest.approx(10.0)
    engine.send(Shutdown(2.0))
    engine.turn()
    assert engine.scheduler._drain_until_s == pytest.approx(engine.now + 2.0)


def test_cached_prompts_are_preloaded_unless_a_model_loads_or_a_request_is_being_prepared():
    engine = FakeEngine()
    engine.send(generate("loads the model", steps=3))
    engine.turn(2)
    assert engine.preloads == 0
    engine.turn(4)
    assert engine.preloads > 0
    engine.send(generate("is prepared", json_schema={"type": "object"}))
    engine.turn()
    assert engine.status("is prepared") is RequestStatus.PREPARING
    before = engine.preloads
    engine.turn()
    assert engine.preloads == before
    engine.end_job("is prepared")
    engine.turn()
    assert engine.preloads == before + 1


@pytest.mark.parametrize("is_loaded", [False, True])
def test_request_whose_models_parent_was_deleted_runs_with_the_model_that_the_client_asked_for(is_loaded):
    """A waiting request for a made model failed when the model that it was made from was deleted."""
    engine = FakeEngine()
    if is_loaded:
        engine.send(Load("load", CHAT))
        engine.turn(8)
    engine.send(
        generate("made", "deleted:latest", requested_model=CHAT),
        generate("parent", "deleted:latest"),
        generate("neither", "deleted:latest", requested_model="nobody"),
    )
    for _ in range(20):
        engine.turn()
        engine.now += RETRY_S
    assert engine.answer("made").reason == "length"
    for name, model in (("parent", "deleted:latest"), ("neither", "nobody:latest")):
        failed = engine.answer(name)
        assert isinstance(failed, Failed) and failed.code == "model_not_found" and model in failed.message


def with_seconds_that_count(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each look at the clock take a second, so that each step takes one."""
    seconds = iter(range(1000))
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(engine.scheduler, "_start_together", engine.scheduler._starter.start_tokenized)
    monkeypatch.setattr(scheduler, "MOST_SHARED_S", 60.0)


def test_step_that_can_be_paused_is_given_the_time_of_the_steps_that_cannot(loaded, monkeypatch):
    """A batch of texts took as long as ten steps of an answer, which had a seventh of its pace beside it."""
    with_seconds_that_count(loaded, monkeypatch)
    loaded.send(Load("load embedder", EMBED))
    loaded.turn(4)
    loaded.send(generate("a", steps=9), generate("b", OTHER_CHAT, steps=9))
    loaded.turn()
    loaded.send(embed("c"))
    loaded.turn(2)
    assert [share for model, share in loaded.shares_s if model == EMBED] == [2.0]


def test_models_whose_steps_can_be_paused_share_the_time_and_do_not_lengthen_it(monkeypatch):
    """Each was given the time that the other had been given and that of the answers, so that the time grew
    with each turn: answers stood still for seconds, and the engine counted as hanging.
    """
    engine = FakeEngine(max_loaded_models=3)
    with_seconds_that_count(engine, monkeypatch)
    engine.send(Load("1", CHAT), Load("2", OTHER_CHAT), Load("3", EMBED))
    engine.turn(12)
    for model in engine.scheduler._models.all():
        model.runner.can_pause = model.entry.name != CHAT
    engine.send(generate("a", steps=40), generate("b", OTHER_CHAT, steps=40), embed("c"))
    engine.turn(3)
    assert {share for model, share in engine.shares_s if model == EMBED} <= {0.0, 0.5}
    engine.turn(20)
    assert engine.shares_s[-1][1] == 1.0  # alone beside the answer
    assert all(share <= 1.0 for _, share in engine.shares_s if share is not None)


def test_step_that_can_be_paused_gets_no_more_than_a_second_beside_long_steps(loaded, monkeypatch):
    with_seconds_that_count(loaded, monkeypatch)
    monkeypatch.setattr(scheduler, "MOST_SHARED_S", 0.25)
    loaded.send(Load("load embedder", EMBED))
    loaded.turn(4)
    loaded.send(generate("a", steps=9))
    loaded.turn()
    loaded.send(embed("c"))
    loaded.turn(2)
    assert [share for model, share in loaded.shares_s if model == EMBED] == [0.25]
