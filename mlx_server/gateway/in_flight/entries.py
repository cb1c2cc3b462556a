"""The list of the requests in flight: one entry for each HTTP request, however many tickets it has. Pure.

A ticket is one request to the engine. OpenAI's `n` and a list of prompts make several tickets at once. A long
list of texts to embed or rank makes several tickets, one after the other. If another machine continues an
HTTP request, the request has no ticket on this machine, but its client still reads the answer here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server.gateway.requests.table.admission import Lane
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.requests.ticket import RequestOrigin, Ticket

MAX_ENTRIES = 200
LOADING = "loading"
ORDER = (RequestPhase.RUNNING.value, LOADING, RequestPhase.PARKED.value, RequestPhase.QUEUED.value)
"""The phases, in the order in which entries are listed. If the tickets of an entry differ in their phase, the
entry has the phase that comes first here."""

TicketInPhase = tuple[Ticket, RequestPhase]

_DIALECTS = {"/api/": "ollama", "/v1/messages": "anthropic", "/v1/responses": "responses", "/v1/": "openai"}
"""The names of dialects by the beginning of the paths of their generating routes (`app.GENERATING_PATHS`).
The first beginning that fits counts."""


@dataclass(frozen=True)
class PassedOn:
    """A request that another machine continues, while its client reads the answer here. `origin` describes
    the client's HTTP request, `path` is its path, and `machine` is the URL of the other machine.
    """

    origin: RequestOrigin
    path: str
    model: str
    machine: str


def in_flight(
    tickets: Iterable[TicketInPhase],
    loaded: Collection[str],
    now: float,
    held: Collection[str] = (),
    passed_on: Iterable[PassedOn] = (),
) -> dict[str, Any]:
    """Return a dict of three fields: `requests`, a list with one entry for each HTTP request in flight;
    `counts`, the number of these requests in each phase; and `omitted`, how many requests are counted but not
    listed.

    Running requests come before waiting ones, and older requests before newer ones; at most MAX_ENTRIES are
    listed. `loaded` are the names of the models in memory: a running request for any other model is in the
    phase `loading`. `held` are the ids of the requests that cannot be cancelled now, because another machine
    is being asked to continue them; the field `cancelable` of their entries is False. `passed_on` are
    requests that other machines continue; they are listed and counted as running.
    """
    of_request: dict[RequestOrigin, list[TicketInPhase]] = {}
    for ticket, phase in tickets:
        if ticket.origin is not None:
            of_request.setdefault(ticket.origin, []).append((ticket, phase))
    phases = {origin: _phase(of_one, loaded) for origin, of_one in of_request.items()}
    elsewhere = {each.origin: each for each in passed_on}
    phases |= dict.fromkeys(elsewhere, RequestPhase.RUNNING.value)
    listed = sorted(phases, key=lambda origin: (ORDER.index(phases[origin]), origin.began_at))[:MAX_ENTRIES]
    counts = Counter(phases.values())
    return {
        "requests": [
            _general(origin, phases[origin], now, origin.id not in held)
            | (
                _of_tickets(of_request[origin], now)
                if origin in of_request
                else _of_passed_on(elsewhere[origin])
            )
            for origin in listed
        ],
        "counts": {phase: counts[phase] for phase in ORDER},
        "omitted": len(phases) - len(listed),
    }


def _phase(tickets: Sequence[TicketInPhase], loaded: Collection[str]) -> str:
    return min((_phase_of_one(ticket, phase, loaded) for ticket, phase in tickets), key=ORDER.index)


def _phase_of_one(ticket: Ticket, phase: RequestPhase, loaded: Collection[str]) -> str:
    is_loading = phase is RequestPhase.RUNNING and ticket.request.model not in loaded
    return LOADING if is_loading else phase.value


def _general(origin: RequestOrigin, phase: str, now: float, is_cancelable: bool) -> dict[str, Any]:
    """Return the fields that every entry has. Those that have to be computed from the request's tickets (its
    requests to the engine), such as the numbers of tokens, are None, 0 or an empty string here.
    """
    return {
        "id": origin.id,
        "client": origin.client,
        "remote": origin.remote,
        "dialect": "",
        "model": "",
        "phase": phase,
        "prompt_tokens": None,
        "tokens": None,
        "tokens_per_s": None,
        "age_s": round(max(0.0, now - origin.began_at), 1),
        "crashes": 0,
        "cancelable": is_cancelable,
    }


def _of_passed_on(request: PassedOn) -> dict[str, Any]:
    return {"dialect": dialect_of(request.path), "model": request.model, "machine": request.machine}


def dialect_of(path: str) -> str:
    """Return the name of the dialect to which the path of a generating route belongs."""
    return next((name for start, name in _DIALECTS.items() if path.startswith(start)), "unknown")


def _of_tickets(tickets: Sequence[TicketInPhase], now: float) -> dict[str, Any]:
    """Return the fields of a request's entry that are computed from its tickets (its requests to the engine).

    `crashes` is the largest of the tickets' counts, and not their sum, because one death of an engine counts
    in every ticket that ran on that engine.
    """
    first = tickets[0][0]
    generates = first.request.lane is Lane.GENERATE
    rates = [
        rate
        for ticket, of_ticket in tickets
        if of_ticket is RequestPhase.RUNNING and (rate := ticket.rate.per_s(now, ticket.tokens)) is not None
    ]
    return {
        "dialect": first.dialect,
        "model": first.request.model,
        "prompt_tokens": next((t.prompt_tokens for t, _ in tickets if t.prompt_tokens is not None), None),
        "tokens": sum(ticket.tokens for ticket, _ in tickets) if generates else None,
        "tokens_per_s": round(sum(rates), 1) if rates else None,
        "crashes": max(ticket.crashes for ticket, _ in tickets),
    }
