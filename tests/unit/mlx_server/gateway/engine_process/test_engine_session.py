"""The session with one engine: requests continue across it, and only an unplanned exit is a crash."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from mlx_server import protocol
from mlx_server.gateway.engine_process.liveness import EngineLiveness
from mlx_server.gateway.engine_process.session import EngineSession
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.model_requests import GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.telemetry import Telemetry
from vestal.supervision import FakeClock


class FakeTransport(asyncio.Transport):
    """Records the operations that a link sends."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[protocol.Op] = []
        self._frames = protocol.FrameBuffer()

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.sent += [protocol.decode_op(frame) for frame in self._frames.feed(data)]


class Engines:
    """A dispatcher with one engine after another."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.telemetry = Telemetry(self.clock.wall, io.StringIO())
        self.dispatcher = Dispatcher(RequestTable(RequestLimits(2, 2, 60)), self.clock, self.telemetry)
        self.ready_engines = 0

    def launch(self) -> tuple[EngineSession, FakeTransport]:
        """Return the session of a new engine that is ready, and what it is sent."""
        liveness = EngineLiveness(30.0, self.clock.now())
        session = EngineSession(1, self.dispatcher, self.telemetry, self.clock, liveness, self._on_ready)
        transport = FakeTransport()
        session.link.connection_made(transport)
        self.receive(session, protocol.Ready(()))
        return session, transport

    def receive(self, session: EngineSession, event: protocol.Event) -> None:
        session.link.data_received(protocol.encode(event))

    def _on_ready(self) -> None:
        self.ready_engines += 1


@pytest.fixture
def engines() -> Engines:
    return Engines()


def test_engine_lost_in_mid_answer_passes_the_request_with_its_tokens_to_the_next_engine(engines):
    session, transport = engines.launch()
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    assert [operation.emitted for operation in transport.sent] == [()]
    engines.receive(session, protocol.Token(ticket.id, 7, "x", 0))
    session.link.connection_lost(None)
    assert not session.ready
    assert engines.dispatcher.count(RequestPhase.PARKED) == 1
    _, next_transport = engines.launch()
    assert [(operation.id, operation.emitted) for operation in next_transport.sent] == [(ticket.id, (7,))]
    assert engines.ready_engines == 2


ABRT, KILL = 6, 9


@pytest.mark.parametrize(
    ("planned", "signal", "oom", "fault", "outcome"),
    [
        (False, ABRT, False, "", "engine_crashed"),
        (False, KILL, False, "wedged", "engine_crashed"),
        (False, KILL, True, "", "engine_crashed"),
        (False, KILL, False, "", None),
        (True, ABRT, False, "", None),
    ],
)
def test_three_engine_crashes_fail_a_request_but_three_external_kills_or_planned_exits_do_not(
    engines, planned, signal, oom, fault, outcome
):
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    for _ in range(3):
        session, _ = engines.launch()
        session.exit_is_planned, session.fault = planned, fault
        session.link.connection_lost(None)
        assert ticket.outcome is None, "the link says nothing of the cause"
        session.exited(None, signal, oom)
    assert ticket.outcome == outcome


@pytest.mark.parametrize(("fault", "crashes"), [("wedged", 1), ("", 0)])
def test_request_returned_by_an_engine_counts_a_crash_only_if_the_engine_was_ended_for_a_fault(
    engines, fault, crashes
):
    """A hanging engine that woke up when it was ended returned its requests, and exited with code 0. No crash
    was counted: /health said `last_crash: null` and `survived_crashes: 0`.
    """
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    session, _ = engines.launch()
    session.fault = fault
    engines.receive(session, protocol.Failed(ticket.id, "engine_unavailable", "It stops.", retryable=True))
    assert session.exited(0, None, False) is (EngineDeath.OWN_FAULT if fault else EngineDeath.PLANNED)
    assert ticket.crashes == crashes
    next_session, _ = engines.launch()
    engines.receive(next_session, protocol.Done(ticket.id, "stop", protocol.Usage(1, 1)))
    assert (ticket.outcome, engines.telemetry.survived_crashes) == ("done", crashes)


def test_engine_that_sends_invalid_bytes_counts_as_faulty_whatever_its_exit_status(engines):
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    for _ in range(3):
        session, _ = engines.launch()
        session.link.data_received(b"\x00\x00\x00\x02no")
        session.exited(0, None, False)
    assert ticket.outcome == "engine_crashed"


def test_requests_wait_for_the_next_engine_if_their_engine_exits_before_its_link_is_lost(engines):
    session, _ = engines.launch()
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    session.exited(None, KILL, False)
    assert engines.dispatcher.count(RequestPhase.PARKED) == 1
    assert ticket.outcome is None


def test_engine_counts_as_having_done_useful_work_once_a_client_got_a_new_token(engines):
    session, _ = engines.launch()
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    assert not session.productive
    engines.receive(session, protocol.Token(ticket.id, 7, "x", 0))
    assert session.productive
    session.exited(None, KILL, False)
    following, _ = engines.launch()
    engines.receive(following, protocol.Token(ticket.id, 7, "x", 0))
    assert not following.productive, "a token that the client has already is not new"


def test_engine_that_returns_an_unfinished_request_is_asked_to_exit_at_once(engines):
    session, transport = engines.launch()
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    engines.receive(session, protocol.Failed(ticket.id, "engine_unavailable", "shutting down"))
    assert session.exit_is_planned
    assert transport.sent[-1] == protocol.Shutdown(drain_s=0)
    assert engines.dispatcher.count(RequestPhase.PARKED) == 1


def test_events_of_a_superseded_engine_are_ignored(engines):
    session, _ = engines.launch()
    ticket = engines.dispatcher.submit(
        sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama"
    )
    session.supersede()
    engines.receive(session, protocol.Token(ticket.id, 7, "x", 0))
    session.link.connection_lost(None)
    assert ticket.tokens == 0
    assert engines.dispatcher.count(RequestPhase.RUNNING) == 1


def test_exception_while_an_event_of_the_engine_is_handled_does_not_close_its_link():
    """Each engine once lost its link as it became ready, because what followed raised an exception."""

    def fail() -> None:
        raise KeyError("ordered by the test")

    engines = Engines()
    liveness = EngineLiveness(30.0, engines.clock.now())
    session = EngineSession(1, engines.dispatcher, engines.telemetry, engines.clock, liveness, fail)
    session.link.connection_made(FakeTransport())
    engines.receive(session, protocol.Ready(()))
    assert session.ready and not session.link.lost.is_set()


def test_exception_in_the_handling_of_engine_events_is_logged_once_for_each_kind_of_event(
    engines, monkeypatch, caplog
):
    """A traceback for each token of each answer would have filled the disk."""

    def fail(event: protocol.Event) -> None:
        raise KeyError("ordered by the test")

    session, _ = engines.launch()
    monkeypatch.setattr(engines.dispatcher, "on_event", fail)
    for number in range(5):
        engines.receive(session, protocol.Token("1", number, "x", number))
    engines.receive(session, protocol.Alive(0, False, 0))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [
        "Events of the engine (Token) cannot be handled",
        "Events of the engine (Alive) cannot be handled",
    ]
