"""Requests come, wait, run and are cancelled in any order: none is lost, doubled or stuck.

The whole scheduler runs over fake models on a fake machine, whose memory, loads and background jobs the
rules below control.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_server.engine.errors import RequestError
from mlx_server.engine.scheduling.request import RequestStatus
from mlx_server.protocol import Cancel, Load, Ready, Unload, Unloaded
from tests.unit.mlx_server.engine.scheduling.fake_backend import (
    CHAT,
    EMBED,
    OTHER_CHAT,
    FakeEngine,
    embed,
    generate,
)

MODELS = st.sampled_from((CHAT, OTHER_CHAT, CHAT, OTHER_CHAT, EMBED, "nobody:latest", "broken:latest"))
SETTLES_WITHIN_TURNS = 400


class EngineRequests(RuleBasedStateMachine):
    @initialize(preload=st.lists(MODELS, unique=True, max_size=2), most_models=st.integers(1, 3))
    def start_engine(self, preload: list[str], most_models: int) -> None:
        self.engine = FakeEngine(preload=preload, max_loaded_models=most_models)
        self.preloads = [f"preload/{name}" for name in preload]
        self.sent = list(self.preloads)
        self.unloads: list[str] = []
        self.cancelled: set[str] = set()
        self.engine.scheduler.preload()

    @rule()
    def both_chat_models_are_loaded(self) -> None:
        self.engine.send(Load(self.next_id(), CHAT), Load(self.next_id(), OTHER_CHAT))
        self.engine.turn(8)

    # --- what the gateway sends ---

    def next_id(self) -> str:
        self.sent.append(f"r{len(self.sent)}")
        return self.sent[-1]

    @rule(
        model=MODELS,
        steps=st.integers(1, 4),
        slow=st.booleans(),
        schema=st.booleans(),
        emitted=st.booleans(),
        count_only=st.sampled_from((False, False, True)),
    )
    def send_generate(
        self, model: str, steps: int, slow: bool, schema: bool, emitted: bool, count_only: bool
    ) -> None:
        more: dict = {"json_schema": {} if schema else None, "emitted": (1,) if emitted else ()}
        self.engine.send(generate(self.next_id(), model, steps, slow=slow, count_only=count_only, **more))

    @rule(model=MODELS, slow=st.booleans())
    def send_embed(self, model: str, slow: bool) -> None:
        self.engine.send(embed(self.next_id(), model, slow=slow))

    @rule(model=MODELS, keep_alive_s=st.sampled_from((None, -1.0, 0.0, 5.0)))
    def send_load(self, model: str, keep_alive_s: float | None) -> None:
        self.engine.send(Load(self.next_id(), model, keep_alive_s))

    @rule(model=MODELS)
    def send_unload(self, model: str) -> None:
        self.unloads.append(f"u{len(self.unloads)}")
        self.engine.send(Unload(self.unloads[-1], model))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(self.sent))
        self.cancelled.add(id)
        self.engine.send(Cancel(id))
        self.engine.turn()
        assert self.engine.status(id) is RequestStatus.FINISHED
        assert len(self.engine.answers(id)) == 1

    # --- what the machine does ---

    @rule(times=st.integers(1, 4))
    def turn(self, times: int) -> None:
        self.engine.turn(times)

    @rule(seconds=st.sampled_from((0.05, 0.1, 1.0, 11.0, 61.0, 61.0, 121.0)))
    def time_passes(self, seconds: float) -> None:
        self.engine.now += seconds
        self.engine.turn()

    @rule(
        places=st.integers(0, 2), can_load=st.booleans(), held_by_requests=st.booleans(), evicts=st.booleans()
    )
    def memory_changes(self, places: int, can_load: bool, held_by_requests: bool, evicts: bool) -> None:
        guard = self.engine.guard
        guard.places, guard.can_load, guard.held_by_requests = places, can_load, held_by_requests
        guard.evicts_idle_models = evicts

    @rule(broken=st.booleans())
    def model_files_change(self, broken: bool) -> None:
        self.engine.loaders_broken = broken

    @precondition(lambda self: self.engine.jobs)
    @rule(data=st.data(), fails=st.booleans())
    def background_job_ends(self, data: st.DataObject, fails: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.engine.jobs)))
        self.engine.end_job(id, RequestError("invalid_request", "no such schema") if fails else None)

    @precondition(lambda self: self.engine.tokenizations)
    @rule(data=st.data(), fails=st.booleans())
    def tokenization_ends(self, data: st.DataObject, fails: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.engine.tokenizations)))
        self.engine.end_tokenization(id, RequestError("invalid_request", "refused") if fails else None)

    # --- what always holds ---

    @invariant()
    def views_agree_with_the_statuses(self) -> None:
        table = self.engine.requests
        if table is None:  # no model was loaded yet
            return
        seen = [request for status in RequestStatus for request in table.select(status)]
        assert len({request.id for request in seen}) == len(seen) == len(table)
        for status in RequestStatus:
            assert all(request.status is status for request in table.select(status))
        assert all(table.get(request.id) is request for request in seen)
        assert not table.any(RequestStatus.FINISHED)

    @invariant()
    def every_request_is_answered_at_most_once_and_gone_with_its_answer(self) -> None:
        for id in self.sent:
            answers = self.engine.answers(id)
            assert len(answers) <= 1
            if answers:
                assert self.engine.status(id) is RequestStatus.FINISHED
        ends = [event.id for event in self.engine.events if isinstance(event, Unloaded) and event.id]
        assert len(set(ends)) == len(ends)

    @invariant()
    def ready_comes_once_and_after_the_preloads(self) -> None:
        ready = [at for at, event in enumerate(self.engine.events) if isinstance(event, Ready)]
        assert len(ready) <= 1
        for at in ready:
            answered = [self.engine.events.index(self.engine.answer(id)) for id in self.preloads]
            assert all(before < at for before in answered)

    # --- in the end ---

    def teardown(self) -> None:
        """With memory, whole models and jobs that end, nothing is left unanswered."""
        if not hasattr(self, "engine"):
            return
        engine = self.engine
        self.memory_changes(2, True, True, False)
        engine.loaders_broken = False
        for _ in range(SETTLES_WITHIN_TURNS):
            if self.is_settled():
                break
            for id in list(engine.jobs):
                engine.end_job(id)
            for id in list(engine.tokenizations):
                engine.end_tokenization(id)
            engine.now += 0.1
            engine.turn()
        assert self.is_settled()
        assert len(engine.requests or ()) == 0

    def is_settled(self) -> bool:
        events = self.engine.events
        return (
            all(len(self.engine.answers(id)) == 1 for id in self.sent)
            and {event.id for event in events if isinstance(event, Unloaded)} >= set(self.unloads)
            and any(isinstance(event, Ready) for event in events)
        )


TestEngineRequests = EngineRequests.TestCase
TestEngineRequests.settings = settings(max_examples=80, stateful_step_count=40)
