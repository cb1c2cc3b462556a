"""The list of the requests in flight, and cancelling one, with a dispatcher but no engine process."""

from __future__ import annotations

import importlib
import io
import time
from typing import Any, cast

import pytest

from mlx_server import protocol
from mlx_server.gateway.app import GENERATING_PATHS, _flat, create_app
from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.errors import RequestCancelled
from mlx_server.gateway.in_flight.entries import MAX_ENTRIES, PassedOn, dialect_of, in_flight
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.model_requests import (
    EmbeddingRequest,
    GenerationRequest,
    LoadRequest,
    RerankRequest,
)
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.gateway.requests.table.crash_policy import EngineDeath
from mlx_server.gateway.requests.table.engine_wait import RequestLimits
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.table.request_table import RequestTable
from mlx_server.gateway.requests.ticket import RequestOrigin, Ticket
from mlx_server.gateway.telemetry import Telemetry
from vestal.config import load
from vestal.supervision import FakeClock

MODEL = "m"


class Gateway:
    """A dispatcher with two slots and an engine that has MODEL in memory, and the list of its requests."""

    def __init__(self, max_queued: int = 2000) -> None:
        self.clock = FakeClock()
        self.telemetry = Telemetry(self.clock.wall, io.StringIO())
        self.dispatcher = Dispatcher(
            RequestTable(RequestLimits(2, max_queued, 60)), self.clock, self.telemetry
        )
        self.cancelled_on_engine: list[str] = []
        self.start_engine()

    def start_engine(self) -> None:
        self.dispatcher.engine_ready(self._send, (MODEL,))
        self.dispatcher.on_event(protocol.Loaded(MODEL, 1000, 0.1))

    def _send(self, frame: bytes) -> None:
        operation = protocol.decode_op(frame)
        if isinstance(operation, protocol.Cancel):
            self.cancelled_on_engine.append(operation.id)

    def submit(self, name: str = "", model: str = MODEL, tickets: int = 1) -> list[Ticket]:
        origin: RequestOrigin | None = None
        submitted: list[Ticket] = []
        for _ in range(tickets):
            request = sendable(GenerationRequest(model, "text", prompt="a"))
            ticket = self.dispatcher.submit(request, "client", "openai")
            origin = origin or RequestOrigin(name or ticket.id, "curl", "127.0.0.1", self.clock.now())
            ticket.origin = origin
            submitted.append(ticket)
        return submitted

    def token(self, ticket: Ticket) -> None:
        first = 7 if ticket.tokens == 0 else None
        self.dispatcher.on_event(protocol.Token(ticket.id, 1, "x", ticket.tokens, prompt_tokens=first))

    def report(self) -> dict:
        loaded = self.dispatcher.loaded_models.names
        return in_flight(self.dispatcher.in_flight(), loaded, self.clock.now())

    def entries(self) -> list[dict]:
        return self.report()["requests"]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_in_flight_list_shows_the_client_of_a_request_and_its_token_counts_and_speed_and_age(gateway):
    (ticket,) = gateway.submit("r1")
    gateway.clock.advance(2.0)
    gateway.token(ticket)
    gateway.clock.advance(1.0)
    for _ in range(20):
        gateway.token(ticket)
    assert gateway.entries() == [
        {
            "id": "r1",
            "client": "curl",
            "remote": "127.0.0.1",
            "dialect": "openai",
            "model": MODEL,
            "phase": "running",
            "prompt_tokens": 7,
            "tokens": 21,
            "tokens_per_s": 20.0,
            "age_s": 3.0,
            "crashes": 0,
            "cancelable": True,
        }
    ]


def test_in_flight_list_shows_no_rate_and_no_prompt_length_before_the_first_token(gateway):
    gateway.submit()
    (entry,) = gateway.entries()
    assert (entry["prompt_tokens"], entry["tokens"], entry["tokens_per_s"]) == (None, 0, None)


def test_in_flight_list_shows_no_token_count_for_an_embedding_request(gateway):
    ticket = gateway.dispatcher.submit(sendable(EmbeddingRequest(MODEL, ("a",))), "client", "ollama")
    ticket.origin = RequestOrigin("e", "", "", gateway.clock.now())
    (entry,) = gateway.entries()
    assert (entry["tokens"], entry["tokens_per_s"]) == (None, None)


def test_in_flight_tokens_per_s_is_the_rate_of_the_last_seconds_only(gateway):
    """An answer that began fast and has become slow shows its present rate."""
    (ticket,) = gateway.submit()
    for step in range(40):
        gateway.clock.advance(0.5)
        for _ in range(50 if step < 20 else 5):
            gateway.token(ticket)
        gateway.dispatcher.tick()
    assert gateway.entries()[0]["tokens_per_s"] == pytest.approx(10.0, rel=0.05)
    gateway.clock.advance(3.5)
    assert gateway.entries()[0]["tokens_per_s"] < 5


def test_in_flight_phase_is_loading_before_the_model_is_loaded_and_parked_after_an_engine_death(gateway):
    (first,), (second,), (third,) = gateway.submit("a"), gateway.submit("b", "other"), gateway.submit("c")
    phases = lambda: {entry["id"]: entry["phase"] for entry in gateway.entries()}  # noqa: E731
    assert phases() == {"a": "running", "b": "loading", "c": "queued"}
    gateway.dispatcher.on_event(protocol.Loaded("other", 1000, 0.1))
    assert phases() == {"a": "running", "b": "running", "c": "queued"}
    gateway.dispatcher.engine_lost()
    gateway.dispatcher.engine_died(EngineDeath.PLANNED)
    assert phases() == {"a": "parked", "b": "parked", "c": "queued"}
    assert [entry["crashes"] for entry in gateway.entries()] == [1, 1, 0]
    gateway.start_engine()
    assert phases() == {"a": "running", "b": "loading", "c": "queued"}
    first.cancel()
    assert phases() == {"b": "loading", "c": "running"}
    second.cancel()
    third.cancel()
    assert gateway.report() == {
        "requests": [],
        "counts": {"running": 0, "loading": 0, "parked": 0, "queued": 0},
        "omitted": 0,
    }


def test_in_flight_list_shows_a_request_with_several_answers_as_one_entry(gateway):
    tickets = gateway.submit("n", tickets=3)
    for ticket in tickets[:2]:
        gateway.token(ticket)
        gateway.token(ticket)
    (entry,) = gateway.entries()
    assert (entry["id"], entry["phase"], entry["tokens"]) == ("n", "running", 4)
    assert gateway.report()["counts"]["queued"] == 0


def test_in_flight_list_neither_shows_nor_counts_the_gateways_own_requests():
    gateway = Gateway()
    gateway.dispatcher.on_event(protocol.Ready(("kept",)))
    gateway.dispatcher.engine_lost()
    gateway.start_engine()  # the gateway loads the model `kept` again
    assert gateway.dispatcher.count(RequestPhase.RUNNING) == 1
    assert gateway.entries() == []
    gateway.dispatcher.on_event(
        protocol.Failed(next(iter(gateway.dispatcher._tickets)), "internal_error", "")
    )
    assert gateway.telemetry.totals()["failed"] == 0
    assert gateway.telemetry.requests["gateway", "internal_error"] == 1


def test_in_flight_list_of_1000_requests_is_bounded_and_begins_with_the_running_ones(gateway):
    """The oldest running requests are listed, `counts` includes all, and the list takes a few milliseconds to
    make.
    """
    for number in range(1000):
        gateway.clock.advance(0.001)
        gateway.submit(f"r{number}")
    began_s = time.thread_time()
    report = gateway.report()
    took_s = time.thread_time() - began_s
    assert len(report["requests"]) == MAX_ENTRIES
    assert [entry["id"] for entry in report["requests"][:4]] == ["r0", "r1", "r2", "r3"]
    assert report["counts"] == {"running": 2, "loading": 0, "parked": 0, "queued": 998}
    assert report["omitted"] == 1000 - MAX_ENTRIES
    assert took_s < 0.5
    assert gateway.dispatcher.cancel("r999"), "one that is not listed can be cancelled too"


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/api/chat", "ollama"),
        ("/v1/messages", "anthropic"),
        ("/v1/responses", "responses"),
        ("/v1/responses/compact", "responses"),
        ("/v1/completions", "openai"),
    ],
)
def test_in_flight_request_served_by_another_machine_is_listed_with_its_machine_and_without_token_counts(
    gateway, path: str, dialect: str
):
    gateway.submit("own")
    gateway.clock.advance(1.0)
    origin = RequestOrigin("far", "curl", "", gateway.clock.now())
    passed_on = [PassedOn(origin, path, MODEL, "http://other:11435")] * 2  # two clients read one answer
    report = in_flight(gateway.dispatcher.in_flight(), (MODEL,), gateway.clock.now(), ("far",), passed_on)
    near, far = report["requests"]
    assert (near["id"], near["cancelable"], "machine" in near) == ("own", True, False)
    assert (far["dialect"], far["model"], far["machine"]) == (dialect, MODEL, "http://other:11435")
    assert (far["phase"], far["tokens"], far["prompt_tokens"], far["cancelable"]) == (
        "running",
        None,
        None,
        False,
    )
    assert report["counts"]["running"] == 2


@pytest.mark.parametrize("phase", ["running", "queued", "parked"])
async def test_cancelled_in_flight_request_in_any_phase_ends_and_its_client_gets_the_reason(gateway, phase):
    if phase == "queued":
        gateway.submit("x")
        gateway.submit("y")
    (ticket,) = gateway.submit("r")
    if phase == "parked":
        gateway.dispatcher.engine_lost()
    assert gateway.entries()[-1]["phase"] == phase
    assert gateway.dispatcher.cancel("r") is True
    with pytest.raises(RequestCancelled) as raised:
        await ticket.next()
    assert (raised.value.status, raised.value.code) == (499, "request_cancelled")
    assert ticket.outcome == "cancelled"
    assert gateway.cancelled_on_engine == ([ticket.id] if phase == "running" else [])
    assert "r" not in {entry["id"] for entry in gateway.entries()}
    assert gateway.dispatcher.cancel("r") is False
    # The engine's answer to the cancellation changes nothing.
    gateway.dispatcher.on_event(protocol.Done(ticket.id, "cancelled", protocol.Usage(1, 0)))
    assert gateway.telemetry.totals()["failed"] == 0


async def test_cancelled_in_flight_request_frees_the_slots_of_all_its_answers_for_the_next_request(gateway):
    tickets = gateway.submit("n", tickets=3)
    gateway.submit("next")
    gateway.dispatcher.cancel("n")
    for ticket in tickets:
        with pytest.raises(RequestCancelled):
            await ticket.next()
    assert [(entry["id"], entry["phase"]) for entry in gateway.entries()] == [("next", "running")]


def test_cancel_of_an_unknown_id_or_of_the_gateways_own_request_returns_false(gateway):
    gateway.dispatcher.submit(sendable(LoadRequest(MODEL)), "gateway", "gateway")
    assert gateway.dispatcher.cancel("nobody") is False
    assert gateway.dispatcher.cancel("") is False


def test_telemetry_totals_count_tokens_and_first_token_times_while_the_request_still_runs(gateway):
    (ticket,) = gateway.submit()
    gateway.clock.advance(1.5)
    gateway.token(ticket)
    gateway.token(ticket)
    totals = gateway.telemetry.totals()
    assert (totals["prompt_tokens"], totals["tokens"]) == (7, 2)
    assert (totals["first_token_s"], totals["first_tokens"]) == (1.5, 1)
    assert (totals["requests"], totals["failed"]) == (0, 0)
    gateway.dispatcher.on_event(protocol.Done(ticket.id, "stop", protocol.Usage(7, 2)))
    (failing,) = gateway.submit()
    gateway.dispatcher.on_event(protocol.Failed(failing.id, "internal_error", "no"))
    embedding = gateway.dispatcher.submit(sendable(EmbeddingRequest(MODEL, ("a",))), "client", "ollama")
    gateway.dispatcher.on_event(protocol.Embedding(embedding.id, "", 3, 5))
    ranking = gateway.dispatcher.submit(sendable(RerankRequest(MODEL, "q", ("a",))), "client", "rerank")
    gateway.dispatcher.on_event(protocol.Reranked(ranking.id, (0.5,), 6))
    (without_tokens,) = gateway.submit()
    gateway.dispatcher.on_event(protocol.Done(without_tokens.id, "length", protocol.Usage(11, 0)))
    counting = GenerationRequest(MODEL, "text", prompt="a", count_only=True)
    counted = gateway.dispatcher.submit(sendable(counting), "client", "anthropic")
    gateway.dispatcher.on_event(protocol.Done(counted.id, "stop", protocol.Usage(9, 0)))
    totals = gateway.telemetry.totals()
    assert totals["prompt_tokens"] == 7 + 5 + 6 + 11, "a prompt that is only counted is not taken in"
    assert (totals["requests"], totals["failed"]) == (6, 1)
    assert (totals["first_token_s"], totals["first_tokens"]) == (1.5, 1)


def test_telemetry_totals_of_prompt_cache_and_drafts_accumulate_across_engines(gateway):
    """Each engine counts from 0 at its start; the totals must not drop when a new engine begins."""

    def alive(hits_ram: int, hits_disk: int, misses: int, drafts: tuple[int, ...]) -> protocol.Alive:
        use = protocol.PromptCacheUse(hits_ram=hits_ram, hits_disk=hits_disk, misses=misses)
        return protocol.Alive(1, False, 0, prompt_cache=use, drafts=protocol.DraftUse(*drafts))

    gateway.dispatcher.on_event(alive(2, 1, 4, (1, 0, 0, 0)))
    gateway.dispatcher.on_event(alive(3, 1, 5, (9, 4, 20, 12)))
    gateway.dispatcher.engine_lost()
    gateway.start_engine()
    gateway.dispatcher.on_event(alive(0, 9, 6, (2, 1, 0, 0)))
    totals = gateway.telemetry.totals()
    assert (totals["cache_hits"], totals["cache_misses"]) == (4 + 9, 5 + 6)
    assert (totals["draft_tokens_guessed"], totals["draft_tokens_accepted"]) == (11 + 20, 5 + 12)
    names = ("lookup_guessed", "lookup_accepted", "model_guessed", "model_accepted")
    assert [gateway.telemetry.of_engines[name] for name in names] == [11, 5, 20, 12]


def test_each_generating_route_is_listed_with_the_dialect_whose_folder_has_it(tmp_path):
    """The list names the dialect by the path, and a route of an unlisted path once counted as OpenAI's."""
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    clock = FakeClock()
    telemetry = Telemetry(clock.wall, io.StringIO())
    dispatcher = Dispatcher(RequestTable(RequestLimits(1, 1, 60)), clock, telemetry)
    context = GatewayContext(config, clock, dispatcher, InstalledModels(config, clock))
    app = create_app(context, cast(Any, None), telemetry)
    routes = cast(Any, [route for route in _flat(app.routes) if hasattr(route, "endpoint")])
    modules = {route.path: route.endpoint.__module__ for route in routes}
    for path in GENERATING_PATHS:
        folder = importlib.import_module(modules[path].rpartition(".")[0])
        assert dialect_of(path) == folder.DIALECT, path
