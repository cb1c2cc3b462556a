"""Hypothesis against the request table: no token is lost or repeated, whatever engines and clients do.

The engine of this test is a model: the token at position i of a request is a function of the request and i,
as counter-based sampling makes it. Messages that it has sent and the gateway has not read may be lost when it
dies.
"""

from __future__ import annotations

import zlib
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_server.gateway.requests.admission import Lane, QueueFull
from mlx_server.gateway.requests.crash_policy import STRIKES_TO_RUN_ALONE
from mlx_server.gateway.requests.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.request_table import (
    CancelOnEngine,
    FailRequest,
    RequestLimits,
    RequestTable,
    SendToEngine,
)

MAX_WAIT_S = 120.0
MODEL = "m"


def _token(name: str, index: int) -> int:
    return zlib.crc32(f"{name}/{index}".encode()) % 50_000


class RequestsAndEngines(RuleBasedStateMachine):
    @initialize(max_running=st.integers(1, 3), max_queued=st.integers(0, 4))
    def begin(self, max_running: int, max_queued: int) -> None:
        self.limits = RequestLimits(max_running, max_queued, MAX_WAIT_S)
        self.table = RequestTable(self.limits)
        self.now = 0.0
        self.submitted = 0
        self.unfinished: dict[str, int] = {}  # request -> its max_tokens
        self.received: dict[str, list[int]] = {}  # request -> the tokens that its client got
        self.on_engine: dict[str, int] = {}  # request -> index of the token that the engine sends next
        self.wire: deque[tuple[str, int, int] | tuple[str, str]] = deque()  # sent, and not read yet
        self.engine_is_ready = False
        self.loaded_early: set[str] = set()  # models of an engine that is not ready yet
        self.progressed: set[str] = set()  # requests that got a token from the present engine
        self.no_engine_since = 0.0
        self.waiting_since: dict[str, float] = {}

    def carry_out(self, actions) -> None:
        for action in actions:
            match action:
                case SendToEngine(name):
                    assert self.engine_is_ready or MODEL in self.loaded_early, "no engine could receive this"
                    assert name in self.unfinished and name not in self.on_engine
                    request = self.table.get(name)
                    assert request is not None
                    assert request.emitted == self.received[name]
                    self.on_engine[name] = len(request.emitted)
                case CancelOnEngine(name):
                    self.on_engine.pop(name, None)
                case FailRequest(name, code, _):
                    assert code in ("engine_crashed", "engine_unavailable")
                    assert code != "engine_crashed" or name not in self.progressed, "it made progress"
                    self.end(name)

    def end(self, name: str) -> None:
        del self.unfinished[name]
        self.on_engine.pop(name, None)

    @rule(client=st.sampled_from(["a", "b"]), max_tokens=st.integers(1, 40))
    def submit(self, client: str, max_tokens: int) -> None:
        name = f"{client}{self.submitted}"
        self.submitted += 1
        self.unfinished[name], self.received[name] = max_tokens, []
        self.waiting_since[name] = self.now
        try:
            self.carry_out(self.table.submit(name, client, Lane.GENERATE, self.now, MODEL))
        except QueueFull:
            assert len(self.unfinished) - 1 >= self.limits.max_running + self.limits.max_queued
            del self.unfinished[name]

    @precondition(lambda self: not self.engine_is_ready)
    @rule()
    def engine_becomes_ready(self) -> None:
        self.engine_is_ready = True
        self.carry_out(self.table.engine_ready())

    @precondition(lambda self: not self.engine_is_ready)
    @rule()
    def engine_loads_model_early(self) -> None:
        self.loaded_early.add(MODEL)
        self.carry_out(self.table.model_loaded_early(MODEL))

    @precondition(lambda self: self.engine_is_ready or self.loaded_early)
    @rule(lost=st.integers(0, 10), crashed=st.booleans())
    def engine_dies(self, lost: int, crashed: bool) -> None:
        """The last `lost` messages never left the engine; the gateway reads the rest before it sees the
        end."""
        for _ in range(min(lost, len(self.wire))):
            self.wire.pop()
        while self.wire:
            self.read_one()
        self.no_engine_since = self.now if self.engine_is_ready else self.no_engine_since
        self.engine_is_ready = False
        self.loaded_early.clear()
        self.on_engine.clear()
        for name in self.unfinished:
            if self.table.is_running(name):
                self.waiting_since[name] = self.now
        self.carry_out(self.table.engine_lost(self.now, crashed))
        self.progressed.clear()

    @precondition(lambda self: self.on_engine)
    @rule(data=st.data(), steps=st.integers(1, 20))
    def engine_works(self, data: st.DataObject, steps: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.on_engine)))
        for _ in range(steps):
            index = self.on_engine[name]
            if index >= self.unfinished[name]:
                self.wire.append((name, "done"))
                del self.on_engine[name]
                return
            self.wire.append((name, index, _token(name, index)))
            self.on_engine[name] = index + 1

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 20))
    def gateway_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            self.read_one()

    def read_one(self) -> None:
        message = self.wire.popleft()
        if len(message) == 2:
            name = message[0]
            if self.table.is_running(name):
                expected = [_token(name, index) for index in range(self.unfinished[name])]
                assert self.received[name] == expected, "the request is done, and its text is not complete"
                self.end(name)
                self.carry_out(self.table.finished(name))
            return
        name, index, token = message
        is_new, actions = self.table.take_token(name, index, token)
        if is_new:
            self.received[name].append(token)
            self.progressed.add(name)
        self.carry_out(actions)

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def client_disconnects(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.unfinished)))
        del self.unfinished[name]
        self.carry_out(self.table.cancel(name))
        assert name not in self.on_engine

    @rule(seconds=st.sampled_from([1.0, 60.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.table.tick(self.now))
        if not self.engine_is_ready:
            for name in self.unfinished:
                if self.table.is_running(name):  # its model was loaded before the engine was ready
                    continue
                waited_s = self.now - max(self.waiting_since[name], self.no_engine_since)
                assert waited_s < MAX_WAIT_S, "the wait for an engine is bounded"

    @invariant()
    def tokens_arrive_in_order_and_once(self) -> None:
        for name, tokens in self.received.items():
            assert tokens == [_token(name, index) for index in range(len(tokens))]

    @invariant()
    def limits_are_kept(self) -> None:
        running = self.table.count(RequestPhase.RUNNING)
        assert running + self.table.count(RequestPhase.PARKED) <= self.limits.max_running
        assert len(self.unfinished) <= self.limits.max_running + self.limits.max_queued

    @invariant()
    def a_suspect_runs_alone(self) -> None:
        requests = [self.table.get(name) for name in self.unfinished]
        running = [each for each in requests if each and each.phase is RequestPhase.RUNNING]
        if any(each.crashes.strikes >= STRIKES_TO_RUN_ALONE for each in running):
            assert len(running) == 1

    @invariant()
    def a_ready_engine_is_not_idle_while_a_request_waits(self) -> None:
        if self.engine_is_ready and self.unfinished:
            assert self.table.count(RequestPhase.RUNNING) > 0

    def teardown(self) -> None:
        """Let a good engine run to the end: every request that has not ended gets its complete text."""
        if not hasattr(self, "table"):
            return
        if not self.engine_is_ready:
            self.engine_becomes_ready()
        while self.unfinished:
            for name in list(self.on_engine):
                index = self.on_engine.pop(name)
                self.wire.extend((name, i, _token(name, i)) for i in range(index, self.unfinished[name]))
                self.wire.append((name, "done"))
            assert self.wire, f"the table has forgotten {sorted(self.unfinished)}"
            while self.wire:
                self.read_one()


TestRequestsAndEngines = RequestsAndEngines.TestCase
TestRequestsAndEngines.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
