"""A request that is cancelled while it waits for its result."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from mlx_server.gateway.dialects.streaming import cancel_on_disconnect
from tests.unit.mlx_server.gateway.dialects.responses.test_responses_runs import a_ticket


async def never() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.mark.parametrize("turns_later", range(5))
async def test_request_cancelled_just_after_its_result_came_ends_cancelled_and_cancels_its_work(turns_later):
    """The end of the task that watches the client swallowed the cancellation, and the route went on."""
    ticket, done = a_ticket(), asyncio.Event()
    http = Request({"type": "http", "headers": []}, never)

    async def route() -> None:
        await cancel_on_disconnect(http, ticket, done.wait())
        await asyncio.Event().wait()

    task = asyncio.ensure_future(route())
    await asyncio.sleep(0.001)
    done.set()
    for _ in range(turns_later):
        await asyncio.sleep(0)
    has_result = turns_later > 3
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert has_result or ticket.outcome == "cancelled"
