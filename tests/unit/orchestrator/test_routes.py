"""The routes of the API alone, with stand-ins for what they call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from orchestrator.api.app import make_app
from orchestrator.api.tasks import TaskRoutes
from orchestrator.errors import DatabaseFailed

TOKEN = "a-token-for-tests"
TASK_ID = "5f1d7e0a-6d0c-4bb5-9d3b-1d7f8c2f6a55"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Search:
    async def find(self, query: str, scope: Any, k: int) -> Any:
        return SimpleNamespace(as_json=lambda: {"k": k})


class Tasks:
    """One running task, until the database goes away, and then does not answer any look in time."""

    def __init__(self) -> None:
        self.is_away = False
        self.submitted: list[tuple[Any, ...]] = []

    async def get(self, task_id: str) -> dict[str, Any]:
        if "\0" in task_id:
            raise DatabaseFailed("Postgres cannot be used (text fields cannot contain NUL)")
        if self.is_away:
            await asyncio.sleep(60.0)
        self.is_away = True
        return {"id": task_id, "state": "running", "steps": []}

    async def submit(self, *arguments: Any) -> str:
        self.submitted.append(arguments)
        return TASK_ID


def container() -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(token=TOKEN, bind="127.0.0.1"),
        database=SimpleNamespace(failure=lambda error: None),
        agents={"lead": None},
        search=Search(),
        tasks=Tasks(),
    )


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(app), headers=AUTHORIZED) as client:
        yield client


@pytest.mark.parametrize(("body", "k"), [({}, 5), ({"k": None}, 5), ({"k": 7}, 7)])
async def test_search_request_without_a_count_or_with_null_gets_the_default_count(body: Any, k: int):
    """`{"k": null}` was a 500."""
    async with serving(make_app(container(), SimpleNamespace())) as client:  # type: ignore[arg-type]
        answer = await client.post("/knowledge/search", json={"query": "x", **body})
        assert (answer.status, await answer.json()) == (200, {"k": k})


@pytest.mark.parametrize("task_id", ["a%00b", "x", TASK_ID.upper()])
async def test_task_request_with_an_id_of_another_form_is_404_and_does_not_ask_the_database(task_id: str):
    """On Postgres, an id with a NUL was a 503 (the database is away)."""
    async with serving(make_app(container(), SimpleNamespace())) as client:  # type: ignore[arg-type]
        for path in (f"/tasks/{task_id}", f"/tasks/{task_id}/events"):
            answer = await client.get(path)
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "unknown_task")


async def test_event_stream_sends_keep_alives_while_the_database_does_not_answer():
    """Looks at the task were counted, not seconds: the stream was silent for 272 s."""
    app = web.Application()
    TaskRoutes(container(), keepalive_each_s=0.05).add_to(app)
    async with serving(app) as client:
        answer = await client.get(f"/tasks/{TASK_ID}/events")
        async with asyncio.timeout(10.0):
            received = [await answer.content.readline() for _ in range(7)]
        assert [line for line in received if line != b"\n"][2:] == [b": keep-alive\n"] * 2
        answer.close()


@pytest.mark.parametrize(
    ("body", "named"), [({}, []), ({"agents": []}, []), ({"agents": ["lead"]}, ["lead"])]
)
async def test_task_is_stored_with_the_agents_that_the_client_named(body: Any, named: list[str]):
    given = container()
    async with serving(make_app(given, SimpleNamespace())) as client:  # type: ignore[arg-type]
        assert (await client.post("/tasks", json={"goal": "g", **body})).status == 201
    assert given.tasks.submitted == [("g", ["lead"], None, None, named)]


async def test_head_request_to_the_event_stream_of_a_task_is_405_and_the_next_request_is_answered():
    """The events followed the head of the response, so the client took them for the next response."""
    async with serving(make_app(container(), SimpleNamespace())) as client:  # type: ignore[arg-type]
        answer = await client.head(f"/tasks/{TASK_ID}/events")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")
        assert (await client.get(f"/tasks/{TASK_ID}")).status == 200


async def test_event_stream_answers_405_to_a_head_request_even_on_a_route_that_accepts_head():
    app = web.Application()
    app.router.add_get("/tasks/{id}/events", TaskRoutes(container()).events)
    async with serving(app) as client:
        assert (await client.head(f"/tasks/{TASK_ID}/events")).status == 405


@pytest.mark.parametrize("body", [b"{bad", b"[]"])
async def test_task_is_not_cancelled_by_a_request_whose_body_is_no_json_object(body: bytes):
    """The body was not read, so the task was cancelled; an error means that a request had no effect."""
    headers = {"Content-Type": "application/json"}
    async with serving(make_app(container(), SimpleNamespace())) as client:  # type: ignore[arg-type]
        answer = await client.delete(f"/tasks/{TASK_ID}", data=body, headers=headers)
        assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_json")
