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

from mlx_server.gateway.requests.table.actions import CancelOnEngine, FailRequest, SendToEngine
from mlx_server.gateway.requests.table.admission import Lane, QueueFull
from mlx_server.gateway.requests.table.crash_policy import KILLS_TO_FAIL, KILLS_TO_RUN_ALONE, EngineDeath
from mlx_server.gateway.requests.table.engine_wait import TRIAL_S, RequestLimits
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.table.request_table import RequestTable

MAX_WAIT_S, PARKED_WAIT_S = 120.0, 200.0
MODEL = "m"


def _token(name: str, index: int) -> int:
    return zlib.crc32(f"{name}/{index}".encode()) % 50_000


class RequestsAndEngines(RuleBasedStateMachine):
    @initialize(max_running=st.integers(1, 3), max_queued=st.integers(0, 4))
    def begin(self, max_running: int, max_queued: int) -> None:
        self.limits = RequestLimits(max_running, max_queued, MAX_WAIT_S, PARKED_WAIT_S)
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
        self.trial_at: float | None = None
        self.death = EngineDeath.PLANNED  # of the last engine
        self.kills: dict[
            str, tuple[int, float, int]
        ] = {}  # request -> place, and kills there that it met alone
        self.worked: dict[str, float] = {}  # request -> work done towards its next token

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
                    self.worked[name] = 0.0
                case CancelOnEngine(name):
                    self.on_engine.pop(name, None)
                case FailRequest(name, code, _):
                    assert code in ("engine_crashed", "engine_unavailable")
                    if code == "engine_crashed":
                        assert self.death is not EngineDeath.PLANNED
                        self.check_that_it_may_fail(name)
                    self.end(name)

    def check_that_it_may_fail(self, name: str) -> None:
        if self.death is EngineDeath.OWN_FAULT:
            assert name not in self.progressed, "it made progress"
        else:
            assert self.kills[name][2] >= KILLS_TO_FAIL, "it may only have been present"

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
    @rule(lost=st.integers(0, 10), death=st.sampled_from(EngineDeath))
    def engine_dies(self, lost: int, death: EngineDeath) -> None:
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
        was_on_engine = [name for name in self.unfinished if self.table.is_running(name)]
        self.waiting_since |= dict.fromkeys(was_on_engine, self.now)
        self.table.engine_lost(self.now)
        self.death = death
        if death is EngineDeath.UNKNOWN_KILL:
            self.note_kill(was_on_engine)
        self.carry_out(self.table.engine_died(death))
        self.progressed.clear()

    def note_kill(self, was_on_engine: list[str]) -> None:
        if not was_on_engine:
            self.kills.clear()  # somebody kills engines whatever runs on them
        for name in was_on_engine:
            tokens, work, alone = self.kills.get(name, (-1, 0.0, 0))
            place = (len(self.received[name]), self.worked[name])
            before = alone if (tokens, work) == place else 0
            self.kills[name] = (*place, before + (len(was_on_engine) == 1))

    @rule(times=st.integers(1, 25), death=st.sampled_from([EngineDeath.UNKNOWN_KILL, EngineDeath.OWN_FAULT]))
    def engines_die_before_they_do_anything(self, times: int, death: EngineDeath) -> None:
        for _ in range(times):
            if not self.engine_is_ready:
                self.engine_becomes_ready()
            self.engine_dies(0, death)

    @precondition(lambda self: self.on_engine)
    @rule(data=st.data(), part=st.sampled_from([0.5, 2.0]))
    def engine_reads_a_part_of_a_prompt(self, data: st.DataObject, part: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.on_engine)))
        if self.table.is_running(name):
            self.table.worked(name, part)
            self.worked[name] = max(part, self.worked[name])

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
            self.kills.pop(name, None)
            self.worked[name] = 0.0
            self.progressed.add(name)
        self.carry_out(actions)

    @precondition(lambda self: self.unfinished)
    @rule(data=st.data())
    def client_disconnects(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.unfinished)))
        del self.unfinished[name]
        self.carry_out(self.table.cancel(name))
        assert name not in self.on_engine

    @rule(seconds=st.one_of(st.none(), st.sampled_from([0.0, 60.0, 240.0])))
    def breaker_opens_or_closes(self, seconds: float | None) -> None:
        self.trial_at = None if seconds is None else self.now + seconds

    @rule(seconds=st.sampled_from([1.0, 60.0, 130.0, 210.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.table.tick(self.now, self.trial_at))
        if not self.engine_is_ready:
            for name in self.unfinished:
                if self.table.is_running(name):  # its model was loaded before the engine was ready
                    continue
                waited_s = self.now - max(self.waiting_since[name], self.no_engine_since)
                request = self.table.get(name)
                parked = request is not None and request.phase is RequestPhase.PARKED
                limit_s = PARKED_WAIT_S if parked else MAX_WAIT_S + TRIAL_S
                assert waited_s < limit_s, "the wait for an engine is bounded"

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
        if any(each.crashes.has_two_strikes for each in running):
            assert len(running) == 1
        if any(each.crashes.kills_in_a_row >= KILLS_TO_RUN_ALONE for each in running):
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
