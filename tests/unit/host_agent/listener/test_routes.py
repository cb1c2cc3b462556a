"""The listener's routes and guard alone, with stand-ins for the agent's parts that they call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request

from host_agent.listener.api import Api
from host_agent.listener.guard import MAX_BODY_BYTES, Guard
from host_agent.listener.proxy.routes import Upstream
from host_agent.listener.sessions import Sessions
from vestal.web import guard
from vestal.web.guard import RequestHead
from vestal.web.http_error import HttpError

PROXIED = tuple(f"/{name}/" for name in Upstream)  # their services read the body


class Asked:
    """The agent's control of its services. It records what it is asked to do."""

    def __init__(self) -> None:
        self.actions: list[tuple[str, str]] = []

    def request(self, name: str, action: str) -> None:
        self.actions.append((name, action))


def make_api(control: Asked) -> Api:
    """Return the routes. A handler that uses another part of the agent than `control` raises
    AttributeError.
    """
    nothing = SimpleNamespace()
    upstreams = SimpleNamespace(session=None, ports=dict.fromkeys(Upstream, 1), token="")
    context = SimpleNamespace(
        journal=nothing,
        status_report=SimpleNamespace(retry_advice=None),
        passes=nothing,
        restart_budget=nothing,
        service_control=control,
        sessions=nothing,
        upgrades=nothing,
        upstreams=upstreams,
        incidents=nothing,
        history=nothing,
    )
    return Api(cast(Any, context), 9099, "cookie", {})


def request(body: bytes, match: Mapping[str, str]) -> web.Request:
    connection = Mock(_reading_paused=False)
    reader = StreamReader(connection, 2**20, loop=asyncio.get_running_loop())
    reader.feed_data(body)
    reader.feed_eof()
    return make_mocked_request(
        "POST", "/x", match_info=dict(match), payload=reader, client_max_size=MAX_BODY_BYTES
    )


MATCH = {"name": "ollama", "action": "restart"}


@pytest.mark.parametrize("body", [b"{bad", b"[]", b"\xff", b'"x"'])
async def test_every_route_that_acts_refuses_a_body_that_is_no_json_object_and_does_nothing(body: bytes):
    """The actions on services, the kill of the engine and the login link did not read their bodies."""
    control = Asked()
    acting = [
        route
        for route in make_api(control).routes()
        if route.method in ("POST", "PUT", "PATCH", "DELETE") and not route.path.startswith(PROXIED)
    ]
    assert len(acting) >= 6
    for route in acting:
        with pytest.raises(HttpError) as refused:
            await cast(Any, route.handler)(request(body, MATCH))
        assert (refused.value.status, refused.value.code) == (400, "invalid_json"), route.path
    assert not control.actions


async def test_action_on_a_service_with_a_body_over_64_kib_is_refused_and_does_nothing():
    control = Asked()
    with pytest.raises(web.HTTPRequestEntityTooLarge):
        await make_api(control).service(request(b" " * (MAX_BODY_BYTES + 1), MATCH))
    assert not control.actions


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_action_on_a_service_needs_no_body(body: bytes):
    control = Asked()
    answer = await make_api(control).service(request(body, MATCH))
    assert (answer.status, control.actions) == (202, [("ollama", "restart")])


def test_guard_admits_the_address_of_the_docker_bridge_as_host_once_the_listener_has_bound_it():
    """It was admitted only on connections to the bridge itself."""
    agent, home = SimpleNamespace(port=9099, bind=[]), SimpleNamespace(token=Path("/token"))
    listeners = Guard(
        cast(Any, SimpleNamespace(agent=agent, home=home)), "secret", Sessions("secret"), cast(Any, None)
    )
    headers = [(b"Host", b"172.17.0.1:9099"), (b"Authorization", b"Bearer secret")]
    paths = ("/status", "/gateway/api/tags")

    def refusals() -> list[HttpError | None]:
        policies = [listeners.policy_for(make_mocked_request("GET", path)) for path in paths]
        heads = [RequestHead("GET", path, headers, "127.0.0.1") for path in paths]
        return [guard.check(head, policy) for head, policy in zip(heads, policies, strict=True)]

    assert all(refusals())
    listeners.admit_host("172.17.0.1")
    assert refusals() == [None, None]
