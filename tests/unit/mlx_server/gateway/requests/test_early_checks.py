"""The gateway's early checks: what waits is checked at once, a few at a time, and never without end."""

from __future__ import annotations

import io

import pytest

from mlx_server import protocol
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.early_checks import MAX_AT_ONCE, EarlyChecks
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.requests.ticket import Ticket
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import FakeClock

USAGE = protocol.Usage(7, 0)


class Engine:
    """A dispatcher with one slot, and what it sends to its engine."""

    def __init__(self) -> None:
        self.sent: list[protocol.Op] = []
        telemetry = Telemetry(FakeClock().wall, io.StringIO())
        self.dispatcher = Dispatcher(RequestTable(RequestLimits(1, 40, 60)), FakeClock(), telemetry)

    def connect(self) -> None:
        self.dispatcher.engine_connected(self._send)

    def get_ready(self, *loaded: str) -> None:
        self.connect()
        self.dispatcher.on_event(protocol.Ready(loaded))
        self.dispatcher.engine_ready(self._send, loaded)

    def _send(self, frame: bytes) -> None:
        self.sent.append(protocol.decode_op(frame))

    def submit(self) -> Ticket:
        request = sendable(GenerationRequest("m", "text", prompt="a"))
        return self.dispatcher.submit(request, "client", "openai")

    def checks(self) -> list[str]:
        return [op.id for op in self.sent if isinstance(op, protocol.Generate) and op.check_only]

    def runs(self) -> list[str]:
        return [op.id for op in self.sent if isinstance(op, protocol.Generate) and not op.check_only]


@pytest.fixture
def engine() -> Engine:
    return Engine()


async def test_request_waiting_behind_another_is_checked_early_and_keeps_its_place(engine):
    engine.get_ready("m")
    first, second = engine.submit(), engine.submit()
    assert (engine.runs(), engine.checks()) == ([first.id], [second.id])
    engine.dispatcher.on_event(protocol.Accepted(second.id, 42))
    assert second.prompt_tokens == 42
    assert not second.is_read_for
    engine.dispatcher.on_event(protocol.Done(first.id, "stop", USAGE))
    assert engine.runs() == [first.id, second.id]


async def test_waiting_request_that_can_never_be_served_fails_at_once(engine):
    engine.get_ready("m")
    first, second, third = engine.submit(), engine.submit(), engine.submit()
    engine.dispatcher.on_event(protocol.Failed(second.id, "context_exceeded", "Too long."))
    with pytest.raises(BadRequest):
        await second.next()
    engine.dispatcher.on_event(protocol.Done(first.id, "stop", USAGE))
    assert engine.runs() == [first.id, third.id]


async def test_request_refused_by_its_early_check_while_it_runs_is_cancelled_on_the_engine(engine):
    engine.get_ready()  # its model is not loaded: it runs, and waits in the engine
    ticket = engine.submit()
    assert engine.runs() == engine.checks() == [ticket.id]
    assert ticket.is_read_for
    engine.dispatcher.on_event(protocol.Failed(ticket.id, "context_exceeded", "Too long."))
    assert engine.sent[-1] == protocol.Cancel(ticket.id)
    assert engine.dispatcher.count(RequestPhase.RUNNING) == 0


async def test_lone_request_for_a_loaded_model_gets_no_early_check(engine):
    engine.get_ready("m")
    ticket = engine.submit()
    assert (engine.runs(), engine.checks()) == ([ticket.id], [])


async def test_request_waiting_for_an_engine_is_checked_early_before_the_engine_is_ready(engine):
    ticket = engine.submit()
    assert engine.sent == []
    engine.connect()
    assert (engine.runs(), engine.checks()) == ([], [ticket.id])
    assert not ticket.is_read_for, "an engine that starts may take long: no stream waits for it"


async def test_early_check_sent_to_two_engines_that_died_is_not_sent_a_third_time(engine):
    ticket = engine.submit()
    for _ in range(3):
        engine.connect()
        engine.dispatcher.engine_lost()
    assert engine.checks() == [ticket.id] * 2
    engine.get_ready("m")
    assert engine.runs() == [ticket.id]


async def test_result_of_an_early_check_of_a_request_is_ignored_if_its_client_has_disconnected(engine):
    engine.get_ready("m")
    first, second = engine.submit(), engine.submit()
    second.cancel()
    engine.dispatcher.on_event(protocol.Failed(second.id, "context_exceeded", "Too long."))
    assert engine.dispatcher.count(RequestPhase.RUNNING) == 1
    assert not first.ended


def test_early_checks_beyond_the_limit_are_sent_only_when_earlier_ones_are_answered_or_forgotten():
    checks, ids = EarlyChecks(), [str(number) for number in range(MAX_AT_ONCE + 3)]
    for request_id in ids:
        checks.add(request_id)
    assert checks.take() == ids[:MAX_AT_ONCE]
    assert checks.take() == []
    assert checks.answered(ids[0])
    assert not checks.answered(ids[0])
    checks.forget(ids[1])
    assert checks.take() == ids[MAX_AT_ONCE : MAX_AT_ONCE + 2]
