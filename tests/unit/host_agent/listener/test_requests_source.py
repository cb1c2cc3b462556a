"""The source of the page's list of requests: what it publishes, and when it asks the gateway again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from host_agent.listener.live import requests_source
from host_agent.listener.live.requests_source import NO_REQUESTS, RETRY_S, UNKNOWN_ROUTE_RETRY_S

LIST = b'event: requests\ndata: {"requests": ["a"], "totals": {}}\n\n'


class Answer:
    """A response to GET /requests/events that sends one list if its status is 200, and then ends."""

    def __init__(self, status: int) -> None:
        self.status, self.content = status, self

    async def __aenter__(self) -> Answer:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield LIST


class Gateway:
    """A client session in which the gateway answers with one status after the other."""

    def __init__(self, statuses: Sequence[int]) -> None:
        self._statuses = iter(statuses)

    def get(self, url: str, **_: object) -> Answer:
        return Answer(next(self._statuses))


async def follow(statuses: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> tuple[list[bytes], list[float]]:
    """Return what the source publishes, and how long it waits after each connection, until the gateway has
    answered with each of the statuses.
    """
    now, published, waits = 0.0, list[bytes](), list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        waits.append(seconds)
        if len(waits) == len(statuses):
            raise asyncio.CancelledError

    own_asyncio = SimpleNamespace(
        sleep=sleep, timeout=asyncio.timeout, get_running_loop=asyncio.get_running_loop
    )
    monkeypatch.setattr(requests_source, "asyncio", own_asyncio)
    monkeypatch.setattr(requests_source, "time", SimpleNamespace(monotonic=lambda: now))
    source = requests_source.RequestsSource(cast(Any, Gateway(statuses)), 1)
    with pytest.raises(asyncio.CancelledError):
        await source.run(lambda key, frame: published.append(frame))
    return published, waits


@pytest.mark.parametrize("status", [401, 500, 503])
async def test_requests_source_asks_again_soon_after_a_gateway_that_is_being_replaced(
    status: int, monkeypatch: pytest.MonkeyPatch
):
    """A gateway that hands over answers 503. The agent took that for an unknown route, so the page showed an
    old list for up to 30 s.
    """
    published, waits = await follow([200, status, 200], monkeypatch)
    assert waits == [RETRY_S] * 3
    assert len(published) == 2 and NO_REQUESTS not in published


async def test_requests_source_forgets_the_list_after_2_seconds_without_one(monkeypatch: pytest.MonkeyPatch):
    published, _ = await follow([200, 503, 503, 503, 503], monkeypatch)
    assert published[1:] == [NO_REQUESTS]


@pytest.mark.parametrize("status", [404, 405])
async def test_requests_source_forgets_the_list_at_once_if_the_gateway_has_no_such_route(
    status: int, monkeypatch: pytest.MonkeyPatch
):
    published, waits = await follow([200, status], monkeypatch)
    assert waits == [RETRY_S, UNKNOWN_ROUTE_RETRY_S]
    assert published[1:] == [NO_REQUESTS]
