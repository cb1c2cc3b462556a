"""The dispatcher: a request that fails in any way releases all it held, and harms no other request."""

from __future__ import annotations

import io
import json

import pytest

from mlx_server import protocol
from mlx_server.gateway.errors import GatewayError, Unavailable
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.model_requests import (
    EmbeddingRequest,
    GenerationRequest,
    LoadRequest,
    UnloadRequest,
)
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.requests.ticket import Ticket
from mlx_server.gateway.telemetry import GATEWAY_ITSELF, EndedRequest, Telemetry
from vestal.supervision import FakeClock

HELD = (RequestPhase.RUNNING, RequestPhase.QUEUED, RequestPhase.PARKED)


class Engine:
    """What the dispatcher sends to an engine; `refuses` is raised in place of sending the next frame."""

    def __init__(self) -> None:
        self.sent: list[protocol.Op] = []
        self.refuses: Exception | None = None

    def send(self, frame: bytes) -> None:
        if self.refuses is not None:
            error, self.refuses = self.refuses, None
            raise error
        self.sent.append(protocol.decode_op(frame))


@pytest.fixture
def engine() -> Engine:
    return Engine()


class BrokenTelemetry(Telemetry):
    """Telemetry that fails once on demand, as it did when the log's disk was full."""

    def __init__(self) -> None:
        super().__init__(FakeClock().wall, io.StringIO())
        self.breaks_at_pause = self.breaks_at_end = False

    def stream_paused(self, seconds: float) -> None:
        if self.breaks_at_pause:
            self.breaks_at_pause = False
            raise KeyError("ordered by the test")
        super().stream_paused(seconds)

    def request_ended(self, request: EndedRequest) -> None:
        if self.breaks_at_end:
            self.breaks_at_end = False
            raise OSError("ordered by the test")
        super().request_ended(request)


def ready_dispatcher(engine: Engine, telemetry: Telemetry) -> Dispatcher:
    """Return a dispatcher with one slot, whose engine is ready."""
    dispatcher = Dispatcher(RequestTable(RequestLimits(1, 4, 60)), FakeClock(), telemetry)
    dispatcher.engine_ready(engine.send, ())
    return dispatcher


@pytest.fixture
def dispatcher(engine: Engine) -> Dispatcher:
    return ready_dispatcher(engine, Telemetry(FakeClock().wall, io.StringIO()))


def submit(dispatcher: Dispatcher) -> Ticket:
    return dispatcher.submit(sendable(GenerationRequest("m", "text", prompt="a")), "client", "ollama")


def held(dispatcher: Dispatcher) -> list[int]:
    return [dispatcher.count(phase) for phase in HELD]


async def test_request_whose_frame_cannot_be_sent_fails_and_the_next_one_starts(dispatcher, engine):
    first, second, third = (submit(dispatcher) for _ in range(3))
    engine.refuses = MemoryError()
    dispatcher.on_event(protocol.Done(first.id, "stop", protocol.Usage(1, 1)))
    assert second.outcome == "overloaded"
    with pytest.raises(GatewayError, match="MemoryError"):
        await second.next()
    assert [getattr(operation, "id", "") for operation in engine.sent] == [first.id, third.id]
    dispatcher.on_event(protocol.Done(third.id, "stop", protocol.Usage(1, 1)))
    assert held(dispatcher) == [0, 0, 0]


async def test_engine_event_that_cannot_be_handled_fails_only_its_own_request(engine):
    """An exception in the link's callback once closed the link, and so interrupted every other request."""
    telemetry = BrokenTelemetry()
    dispatcher = ready_dispatcher(engine, telemetry)
    broken, waiting = submit(dispatcher), submit(dispatcher)
    telemetry.breaks_at_pause = True
    dispatcher.engine_lost()
    dispatcher.engine_ready(engine.send, ())
    dispatcher.on_event(protocol.Token(broken.id, 7, "x", 0))
    assert broken.outcome == "engine_crashed"
    with pytest.raises(GatewayError, match="KeyError"):
        await broken.next()
    assert protocol.Cancel(broken.id) in engine.sent
    dispatcher.on_event(protocol.Token(waiting.id, 7, "x", 0))
    assert isinstance(await waiting.next(), protocol.Token)
    dispatcher.on_event(protocol.Done(waiting.id, "stop", protocol.Usage(1, 1)))
    assert held(dispatcher) == [0, 0, 0]


async def test_request_whose_end_cannot_be_recorded_still_ends_and_the_next_one_starts(engine):
    telemetry = BrokenTelemetry()
    dispatcher = ready_dispatcher(engine, telemetry)
    first, second = submit(dispatcher), submit(dispatcher)
    telemetry.breaks_at_end = True
    dispatcher.on_event(protocol.Done(first.id, "stop", protocol.Usage(1, 1)))
    assert isinstance(await first.next(), protocol.Done)
    assert [getattr(operation, "id", "") for operation in engine.sent] == [first.id, second.id]
    assert held(dispatcher) == [1, 0, 0]


@pytest.mark.parametrize("end", ["cancelled", "failed", "done"])
def test_request_that_ends_in_any_way_gives_its_slot_to_the_next(dispatcher, engine, end):
    first, second = submit(dispatcher), submit(dispatcher)
    assert held(dispatcher) == [1, 1, 0]
    if end == "cancelled":
        first.cancel()
    elif end == "failed":
        dispatcher.on_event(protocol.Failed(first.id, "invalid_request", "no"))
    else:
        dispatcher.on_event(protocol.Done(first.id, "stop", protocol.Usage(1, 1)))
    assert held(dispatcher) == [1, 0, 0]
    second.cancel()
    assert held(dispatcher) == [0, 0, 0]


def test_request_behind_an_open_breaker_is_refused_only_if_the_trial_start_comes_too_late(engine):
    dispatcher = ready_dispatcher(engine, Telemetry(FakeClock().wall, io.StringIO()))
    now = FakeClock().now()
    dispatcher.engine_lost()
    dispatcher.trial_at = lambda: now + 60
    assert submit(dispatcher).outcome is None
    dispatcher.trial_at = lambda: now + 240
    with pytest.raises(Unavailable, match="started again in 240 s") as refused:
        submit(dispatcher)
    assert refused.value.headers()["Retry-After"] == "240"
    assert held(dispatcher) == [0, 1, 0]


async def test_engine_death_logs_one_event_with_the_waiting_requests_and_one_with_the_lost_requests(engine):
    """Earlier, the events named how many requests waited but not how many failed."""
    log = io.StringIO()
    dispatcher = ready_dispatcher(engine, Telemetry(FakeClock().wall, log))
    first, second = submit(dispatcher), submit(dispatcher)
    dispatcher.engine_lost()
    dispatcher.give_up("The engine cannot start: exit code 78.")
    for ticket in (first, second):
        with pytest.raises(GatewayError, match="cannot start"):
            await ticket.next()
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    (parked,) = [event for event in events if event["event"] == "requests_parked"]
    (lost,) = [event for event in events if event["event"] == "requests_lost"]
    assert (parked["count"], parked["ids"]) == (1, [first.id])
    assert (lost["count"], lost["ids"]) == (2, [first.id, second.id])
    assert lost["cause"] == "The engine cannot start: exit code 78."


def test_embedding_and_model_load_that_waited_for_the_next_engine_are_logged_as_resumed(engine):
    """Of an answer and an embedding that both went on after a crash, the page said "2 waited, 1 continued".

    A model that the gateway loads again by itself is no request of a client.
    """
    log = io.StringIO()
    dispatcher = ready_dispatcher(engine, Telemetry(FakeClock().wall, log))
    wanted = (EmbeddingRequest("m", ("text",)), LoadRequest("other", 60.0))
    of_client = [dispatcher.submit(sendable(each), "client", "ollama") for each in wanted]
    dispatcher.submit(sendable(LoadRequest("third", 60.0)), GATEWAY_ITSELF, GATEWAY_ITSELF)
    dispatcher.engine_lost()
    dispatcher.engine_died(EngineDeath.UNKNOWN_KILL)
    dispatcher.engine_ready(engine.send, ())
    dispatcher.on_event(protocol.Embedding(of_client[0].id, protocol.pack_vectors([[0.5]]), 1, 1))
    dispatcher.on_event(protocol.Loaded("other", 1, 1.0, of_client[1].id))
    events = [json.loads(line) for line in log.getvalue().splitlines()]
    (parked,) = [event for event in events if event["event"] == "requests_parked"]
    resumed = [event["id"] for event in events if event["event"] == "request_resumed"]
    assert (parked["count"], parked["ids"]) == (2, [ticket.id for ticket in of_client])
    assert resumed == parked["ids"]


def test_request_whose_engine_died_while_it_read_the_prompt_is_sent_again_as_resumed_with_its_first_time(
    engine,
):
    """The next engine once treated it as new, and refused it after 10 s, before the memory was free again."""
    clock = FakeClock()
    dispatcher = Dispatcher(
        RequestTable(RequestLimits(2, 4, 60)), clock, Telemetry(clock.wall, io.StringIO())
    )
    dispatcher.engine_ready(engine.send, ())
    created_s = clock.wall()
    for request in (GenerationRequest("m", "text", prompt="p"), EmbeddingRequest("m", ("text",))):
        dispatcher.submit(sendable(request), "client", "ollama")
    dispatcher.engine_lost()
    dispatcher.engine_died(EngineDeath.UNKNOWN_KILL)
    clock.advance(3600.0)
    dispatcher.engine_ready(engine.send, ())
    sent = [op for op in engine.sent if isinstance(op, (protocol.Generate, protocol.Embed))]
    first = [op.resumed for op in sent if not getattr(op, "check_only", False)]
    assert first == [False, False, True, True]
    times = {op.created_s for op in sent if isinstance(op, protocol.Generate) and not op.check_only}
    assert times == {created_s}


@pytest.mark.parametrize(("sender", "survived"), [("client", 1), (GATEWAY_ITSELF, 0)])
def test_only_requests_of_clients_count_as_survivors_of_an_engine_crash(engine, sender, survived):
    """A load by the gateway itself once counted too: with one answer, /health said that two had survived."""
    telemetry = Telemetry(FakeClock().wall, io.StringIO())
    dispatcher = ready_dispatcher(engine, telemetry)
    ticket = dispatcher.submit(sendable(LoadRequest("other", 60.0)), sender, sender)
    dispatcher.engine_lost()
    dispatcher.engine_died(EngineDeath.UNKNOWN_KILL)
    dispatcher.engine_ready(engine.send, ())
    dispatcher.on_event(protocol.Loaded("other", 1, 1.0, ticket.id))
    assert (ticket.crashes, held(dispatcher)) == (1, [0, 0, 0])
    assert telemetry.survived_crashes == survived


async def test_model_unloaded_for_damaged_weights_writes_an_event_for_the_journal(engine):
    telemetry = Telemetry(FakeClock().wall, io.StringIO())
    dispatcher = ready_dispatcher(engine, telemetry)
    dispatcher.on_event(protocol.Unloaded("m", damage="Model m is no longer used."))
    dispatcher.on_event(protocol.Unloaded("m"))
    (event,) = await telemetry.engine_events.after(0, 0)
    assert (event.event, event.cause, event.fields) == (
        "weights_damaged",
        "Model m is no longer used.",
        {"model": "m"},
    )


async def test_model_of_an_earlier_engine_that_finds_the_queue_full_is_not_loaded_and_the_engine_serves():
    """The refusal once closed the link of the new engine, and that of each engine after it."""
    engine, telemetry = Engine(), Telemetry(FakeClock().wall, io.StringIO())
    dispatcher = Dispatcher(RequestTable(RequestLimits(1, 0, 60)), FakeClock(), telemetry)
    dispatcher.engine_ready(engine.send, ())
    for model in ("a", "b"):
        dispatcher.on_event(protocol.Loaded(model, 1, 0.1))
    dispatcher.engine_lost()
    dispatcher.engine_ready(engine.send, ())
    loads = [operation for operation in engine.sent if isinstance(operation, protocol.Load)]
    assert [load.model for load in loads] == ["a"]
    assert submit(dispatcher).outcome is None


def engine_has_kept_model(dispatcher: Dispatcher) -> None:
    """Have the engine report that it has the model `m`, which a client has asked to keep."""
    kept = protocol.LoadedModelReport("m", "generate", 1, 1, None, keep_alive_s=-1.0)
    dispatcher.on_event(protocol.Alive(0, False, 0, (kept,)))


def next_engine(dispatcher: Dispatcher) -> list[protocol.Op]:
    """Replace the engine by another one, and return what this one gets, without checks of requests."""
    engine = Engine()
    dispatcher.engine_lost()
    dispatcher.engine_died(EngineDeath.UNKNOWN_KILL)
    dispatcher.engine_ready(engine.send, ())
    return [op for op in engine.sent if not getattr(op, "check_only", False)]


def test_model_whose_load_kills_each_engine_is_requested_only_once_from_each_next_engine(dispatcher):
    """Each engine once got one load more, because it restored the keep-alive of a model yet to be loaded."""
    engine_has_kept_model(dispatcher)
    for _ in range(2):
        assert [type(op) for op in next_engine(dispatcher)] == [protocol.Load]
    assert sum(held(dispatcher)) == 1


def test_model_that_a_client_has_asked_to_unload_is_not_loaded_again_by_the_next_engine(dispatcher):
    """The client of `ollama stop` was told that the model was unloaded; then it was loaded for ever."""
    engine_has_kept_model(dispatcher)
    submit(dispatcher)
    dispatcher.submit(sendable(UnloadRequest("m")), "client", "ollama")
    assert [type(op) for op in next_engine(dispatcher)] == [protocol.Generate, protocol.Unload]
    assert sum(held(dispatcher)) == 2  # no load waits behind the two


def test_keep_alive_of_a_model_that_a_generation_needs_is_restored_in_the_next_engine(dispatcher):
    engine_has_kept_model(dispatcher)
    submit(dispatcher)
    (load,) = [op for op in next_engine(dispatcher) if isinstance(op, protocol.Load)]
    assert (load.model, load.keep_alive_s, load.resumed) == ("m", -1.0, True)
