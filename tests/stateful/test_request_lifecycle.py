"""Hypothesis against the request table: no token lost or doubled, whatever engines and clients do.

The engine here is a model: the token at position i of a request is a function of the request and i, as
counter-based sampling makes it. What it has sent and the gateway has not read dies with it, or not.
"""

from __future__ import annotations

from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_server.gateway.requests.request_lifecycle import ALONE_AFTER_STRIKES, RequestPhase
from mlx_server.gateway.requests.request_table import (
    Lane,
    Limits,
    QueueFull,
    Refuse,
    RequestTable,
    Start,
    Withdraw,
)

MAX_WAIT_S = 120.0
MODEL = "m"


def _token(name: str, index: int) -> int:
    return hash((name, index)) % 50_000


class RequestsAndEngines(RuleBasedStateMachine):
    @initialize(max_running=st.integers(1, 3), max_queued=st.integers(0, 4))
    def begin(self, max_running: int, max_queued: int) -> None:
        self.limits = Limits(max_running, max_queued, MAX_WAIT_S)
        self.table = RequestTable(self.limits)
        self.now = 0.0
        self.number = 0
        self.wanted: dict[str, int] = {}  # what is not ended: name -> max_tokens
        self.given: dict[str, list[int]] = {}  # to the clients
        self.on_engine: dict[str, int] = {}  # name -> index it will send next
        self.wire: deque[tuple[str, int, int] | tuple[str, str]] = deque()
        self.up = False
        self.early: set[str] = set()  # models of an engine that is not ready yet
        self.got_on: set[str] = set()  # since the engine before the present one died
        self.away_since = 0.0
        self.since: dict[str, float] = {}

    def do(self, actions) -> None:
        for action in actions:
            match action:
                case Start(name):
                    assert self.up or MODEL in self.early, "nothing is sent to an engine that is not there"
                    assert name in self.wanted and name not in self.on_engine
                    life = self.table.life(name)
                    assert life is not None
                    assert life.emitted == self.given[name]
                    self.on_engine[name] = len(life.emitted)
                case Withdraw(name):
                    self.on_engine.pop(name, None)
                case Refuse(name, code, _):
                    assert code in ("engine_crashed", "engine_unavailable")
                    assert code != "engine_crashed" or name not in self.got_on, "a bystander is given up"
                    self.end(name)

    def end(self, name: str) -> None:
        del self.wanted[name]
        self.on_engine.pop(name, None)

    @rule(client=st.sampled_from(["a", "b"]), max_tokens=st.integers(1, 40))
    def submit(self, client: str, max_tokens: int) -> None:
        name = f"{client}{self.number}"
        self.number += 1
        self.wanted[name], self.given[name], self.since[name] = max_tokens, [], self.now
        try:
            self.do(self.table.submit(name, client, Lane.GENERATE, self.now, MODEL))
        except QueueFull:
            assert len(self.wanted) - 1 >= self.limits.max_running + self.limits.max_queued
            del self.wanted[name]

    @precondition(lambda self: not self.up)
    @rule()
    def engine_comes(self) -> None:
        self.up = True
        self.do(self.table.engine_came())

    @precondition(lambda self: not self.up)
    @rule()
    def model_comes(self) -> None:
        self.early.add(MODEL)
        self.do(self.table.model_came(MODEL))

    @precondition(lambda self: self.up or self.early)
    @rule(lost=st.integers(0, 10), blame=st.booleans())
    def engine_dies(self, lost: int, blame: bool) -> None:
        """The last `lost` messages never left it; the gateway reads the rest before it sees the end."""
        for _ in range(min(lost, len(self.wire))):
            self.wire.pop()
        while self.wire:
            self.read_one()
        self.away_since = self.now if self.up else self.away_since
        self.up = False
        self.early.clear()
        self.on_engine.clear()
        for name in self.wanted:
            self.since[name] = self.now if self.table.is_running(name) else self.since[name]
        self.do(self.table.engine_left(self.now, blame))
        self.got_on.clear()

    @precondition(lambda self: self.on_engine)
    @rule(data=st.data(), steps=st.integers(1, 20))
    def engine_works(self, data: st.DataObject, steps: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.on_engine)))
        for _ in range(steps):
            index = self.on_engine[name]
            if index >= self.wanted[name]:
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
                expected = [_token(name, index) for index in range(self.wanted[name])]
                assert self.given[name] == expected, "done, and the text is not whole"
                self.end(name)
                self.do(self.table.finished(name))
            return
        name, index, token = message
        fresh, actions = self.table.token(name, index, token)
        if fresh:
            self.given[name].append(token)
            self.got_on.add(name)
        self.do(actions)

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.wanted)))
        del self.wanted[name]
        self.do(self.table.cancel(name))
        assert name not in self.on_engine

    @rule(seconds=st.sampled_from([1.0, 60.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.table.tick(self.now))
        if not self.up:
            for name in self.wanted:
                if self.table.is_running(name):  # its model came before the engine was ready
                    continue
                waited = self.now - max(self.since[name], self.away_since)
                assert waited < MAX_WAIT_S, "the wait is bounded"

    @invariant()
    def tokens_are_in_order_and_single(self) -> None:
        for name, tokens in self.given.items():
            assert tokens == [_token(name, index) for index in range(len(tokens))]

    @invariant()
    def limits_hold(self) -> None:
        running = self.table.count(RequestPhase.RUNNING)
        assert running + self.table.count(RequestPhase.PARKED) <= self.limits.max_running
        assert len(self.wanted) <= self.limits.max_running + self.limits.max_queued

    @invariant()
    def a_suspect_runs_alone(self) -> None:
        lives = [self.table.life(name) for name in self.wanted]
        running = [life for life in lives if life and life.phase is RequestPhase.RUNNING]
        if any(life.strikes >= ALONE_AFTER_STRIKES for life in running):
            assert len(running) == 1

    @invariant()
    def an_engine_that_is_up_is_not_idle_while_somebody_waits(self) -> None:
        if self.up and self.wanted:
            assert self.table.count(RequestPhase.RUNNING) > 0

    def teardown(self) -> None:
        """Left alone with a good engine, all that is not ended gets its whole text."""
        if not hasattr(self, "table"):
            return
        if not self.up:
            self.engine_comes()
        while self.wanted:
            for name in list(self.on_engine):
                index = self.on_engine.pop(name)
                self.wire.extend((name, i, _token(name, i)) for i in range(index, self.wanted[name]))
                self.wire.append((name, "done"))
            assert self.wire, f"{sorted(self.wanted)} are forgotten"
            while self.wire:
                self.read_one()


TestRequestsAndEngines = RequestsAndEngines.TestCase
TestRequestsAndEngines.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
