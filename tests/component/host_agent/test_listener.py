"""The listener over real sockets: what is refused, what is shared, and what a browser may do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.listener.context import ListenerContext
from host_agent.listener.proxy.routes import Upstream, Upstreams
from host_agent.listener.recovery_routes import RetryAdviceCache
from host_agent.listener.server import Listener
from host_agent.listener.sessions import Sessions
from host_agent.recovery.facts import Facts
from host_agent.recovery.passes import Passes
from host_agent.recovery.remedies import Remedy
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.services import NAMES
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.retry_advice import RetryAdvice
from host_agent.services.service_control import ServiceControl
from host_agent.services.service_status import ServiceStatus
from host_agent.services.status_report import StatusReport
from vestal.config import ensure_token, load
from vestal.supervision import State, Supervisor
from vestal.web.listening_sockets import InheritedSockets

WITHIN_S = 15.0  # less than the limits of connections, and than the time after which advice is out of date


class BlockedEffects:
    """Recovery passes that end once `may_end` is set."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.passes = 0

    async def gather(self) -> Facts:
        self.passes += 1
        await self.may_end.wait()
        return Facts(services=())

    async def apply(self, remedy: Remedy) -> None:
        raise AssertionError("nothing is broken")


class FixedStatusReport:
    def __init__(self) -> None:
        self.advice: dict[str, RetryAdvice] = {}

    async def service_statuses(self) -> dict[str, ServiceStatus]:
        return {name: ServiceStatus(State.READY, extra={"rss_bytes": 1}) for name in NAMES}

    async def retry_advice(self) -> dict[str, RetryAdvice]:
        return self.advice

    def host(self) -> dict[str, Any]:
        memory = {"total_bytes": 2, "available_bytes": 1}
        return {"memory": memory, "wired_fraction": None, "warning": "", "sleep": {"slept_s": 0}}


@pytest.fixture
async def served(home: Path, free_port: Callable[[], int]) -> AsyncIterator[SimpleNamespace]:
    """A listener on a free port, and a client with the token."""
    port = free_port()
    config = load({"HOME": str(home), "VESTAL_HOME": str(home), "VESTAL_AGENT_PORT": str(port)}, home)
    config.home.prepare()
    token = ensure_token(config.home)
    journal, effects = Journal(config.home.journal_db), BlockedEffects()
    passes = Passes(effects, effects, journal, config.home.recovery_lock)
    nothing = cast(Any, None)
    refuse: Any = SimpleNamespace(refusal=lambda action: f"Ollama is another's: `brew services {action}`.")
    actions = ServiceControl(Supervisor([]), nothing, nothing, refuse, ModeDecision(Mode.OFF, ""), journal)
    report, budget = FixedStatusReport(), RestartBudget()
    upstreams = Upstreams(nothing, dict.fromkeys(Upstream, port), "")
    context = ListenerContext(
        status_report=cast(StatusReport, report),
        passes=passes,
        restart_budget=budget,
        journal=journal,
        service_control=actions,
        sessions=Sessions(token),
        upgrades=nothing,
        upstreams=upstreams,
        incidents=Incidents(journal),
        history=nothing,
    )
    listener = Listener(config, token, context, journal, InheritedSockets())
    await listener.start()
    base = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base, headers=headers, connector=connector) as client:
        yield SimpleNamespace(
            client=client,
            token=token,
            journal=journal,
            effects=effects,
            passes=passes,
            budget=budget,
            report=report,
            port=port,
            base=base,
            home=home,
        )
    effects.may_end.set()
    await passes.wait()
    journal.close()
    await listener.stop()


async def refused(reply: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    assert reply.status == status, await reply.text()
    error = json.loads(await reply.text())["error"]
    assert error["code"]
    assert error["message"].endswith((".", "`"))
    return error


async def test_listener_without_token_serves_only_health_and_page(served):
    async with aiohttp.ClientSession(served.base) as anonymous:
        assert (await anonymous.get("/health")).status == 200
        page = await anonymous.get("/")
        assert page.status == 200
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        script = await anonymous.get("/assets/main.js")
        assert (script.status, script.headers["Cache-Control"]) == (200, "no-cache")
        assert script.headers["X-Content-Type-Options"] == "nosniff"
        assert script.headers["Content-Security-Policy"] == page.headers["Content-Security-Policy"]
        await refused(await anonymous.get("/assets/none.js"), 404)
        await refused(await anonymous.post("/assets/main.js", json={}), 401)
        for path in ("/status", "/journal", "/events", "/metrics", "/recover/x", "/nowhere"):
            error = await refused(await anonymous.get(path), 401)
            assert str(served.home / "token") in error["message"]
        await refused(await anonymous.post("/recover", json={}), 401)
        await refused(await anonymous.post("/services/mlx_server/stop", json={}), 401)
    assert served.effects.passes == 0


@pytest.mark.parametrize("value", ["Bearer wrong", "Bearer ", "Basic eDp5", "Bearer \u00e4"])
async def test_status_with_wrong_token_is_401(served, value: str):
    reply = await served.client.get("/status", headers={"Authorization": value})
    await refused(reply, 401)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:9099"}, 403),
        ({"Host": "host.docker.internal:9099"}, 202),
        ({"Host": "LOCALHOST"}, 202),
    ],
)
async def test_recover_request_with_a_foreign_origin_or_host_is_403(
    served, headers: dict[str, str], status: int
):
    reply = await served.client.post("/recover", json={}, headers=headers)
    assert reply.status == status
    if status == 403:
        await refused(reply, 403)


async def test_recover_request_from_the_agents_own_page_is_accepted(served):
    reply = await served.client.post("/recover", json={}, headers={"Origin": served.base})
    assert reply.status == 202


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"ts": NaN}', "application/json", 400),
        (b"[" * 20_000, "application/json", 400),
        (b'{"mlx": 1}', "application/json", 400),
        (b'{"ollama": "yes"}', "application/json", 400),
        (b'{"ts": []}', "application/json", 400),
        (b'{"ts": true}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b'{"a": "' + b"x" * 70_000 + b'"}', "application/json", 413),
        (b'{"mlx": false, "ollama": true, "ts": 1.5, "more": {}}', "application/json", 202),
        (b'{"ts": "2026-01-01"}', "application/json; charset=utf-8", 202),
        (b'{"mlx": null}', "application/json", 202),
    ],
)
async def test_post_to_the_recover_endpoint_accepts_only_json_with_fields_of_the_right_types(
    served, body: bytes, kind: str, status: int
):
    reply = await served.client.post("/recover", data=body, headers={"Content-Type": kind})
    if status != 202:
        await refused(reply, status)
        assert served.effects.passes == 0
    else:
        assert reply.status == 202


async def test_recover_request_with_a_chunked_body_over_64_kib_is_413(served):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1024

    reply = await served.client.post("/recover", data=chunks(), headers={"Content-Type": "application/json"})
    await refused(reply, 413)


async def test_listener_refuses_an_unknown_address_method_or_recovery_run_with_a_json_error(served):
    await refused(await served.client.get("/nowhere"), 404)
    reply = await served.client.get("/recover")
    await refused(reply, 405)
    assert "POST" in reply.headers["Allow"]
    await refused(await served.client.get("/recover/unknown"), 404)
    await refused(await served.client.get("/journal?since=x"), 400)


async def test_listener_refuses_an_action_on_an_unknown_or_unmanaged_service_with_the_remedy(served):
    error = await refused(await served.client.post("/services/foo/stop"), 404)
    for name in NAMES:
        assert name in error["message"]
    error = await refused(await served.client.post("/services/ollama/restart"), 409)
    assert "brew services restart" in error["message"]
    await refused(await served.client.post("/services/mlx_engine/stop"), 409)


async def test_recover_with_two_hundred_simultaneous_callers_runs_one_recovery_pass(served):
    async def call() -> tuple[int, dict[str, Any]]:
        async with served.client.post("/recover", json={"mlx": False}) as reply:
            return reply.status, await reply.json()

    answers = await asyncio.gather(*(call() for _ in range(200)))
    assert {status for status, _ in answers} == {202}
    assert len({body["run_id"] for _, body in answers}) == 1
    assert sorted(body["state"] for _, body in answers) == ["joined"] * 199 + ["started"]
    assert all(body["retry_after_s"] > 0 for _, body in answers)
    served.effects.may_end.set()
    await served.passes.wait()
    assert served.passes.count == 1
    requests = [e for e in served.journal.since(0) if e["event"] == "recovery_requested"]
    assert len(requests) == 1
    assert requests[0]["fields"]["remote"] == "127.0.0.1"
    report = await (await served.client.get(f"/recover/{answers[0][1]['run_id']}")).json()
    assert report["state"] == "done"
    assert {"found", "done", "left", "healthy"} <= set(report)


async def test_recover_for_a_service_stopped_by_hand_returns_advice_and_a_long_retry_time(served):
    ask = lambda body: served.client.post("/recover", json=body)  # noqa: E731
    healthy = await (await ask({"mlx": False})).json()
    assert (healthy["state"], healthy["retry_after_s"], healthy["services"]) == ("started", 5, {})
    served.report.advice = {"mlx": RetryAdvice.MANUAL_STOP, "ollama": RetryAdvice.RECOVERING}
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while not (advised := await (await ask({"mlx": False})).json())["services"]:
        assert asyncio.get_running_loop().time() < deadline
    assert advised == {
        "run_id": healthy["run_id"],
        "state": "joined",
        "retry_after_s": 300,
        "services": {"mlx": "manual_stop", "ollama": "recovering"},
    }
    assert (await (await ask({"mlx": False, "ollama": False})).json())["retry_after_s"] == 10
    assert (await (await ask({})).json())["retry_after_s"] == 5


async def test_retry_advice_is_empty_if_the_function_that_reads_it_raises_or_hangs():
    async def fails() -> dict[str, RetryAdvice]:
        raise RuntimeError("no")

    looks = 0

    async def hangs() -> dict[str, RetryAdvice]:
        nonlocal looks
        looks += 1
        await asyncio.Event().wait()
        return {}

    assert await RetryAdviceCache(fails).get() == {}
    hanging = RetryAdviceCache(hangs)
    assert await hanging.get() == await hanging.get() == {}
    assert looks == 1, "one look at a time"


async def test_recover_beyond_the_rate_limit_is_429_unless_a_recovery_pass_is_running(served):
    served.effects.may_end.set()
    reply = None
    for _ in range(40):
        reply = await served.client.post("/recover", json={})
        if reply.status == 429:
            break
        await served.passes.wait()
    assert reply is not None
    await refused(reply, 429)
    assert int(reply.headers["Retry-After"]) >= 1
    served.effects.may_end.clear()
    served.passes.request("by the schedule")
    assert (await served.client.post("/recover", json={})).status == 202


async def test_recover_reset_restores_all_restarts_of_a_service_that_has_none_left(
    served, monkeypatch: pytest.MonkeyPatch
):
    """The report of a pass says so: "restarted too often …; `vestal recover --reset` tries again at once"."""

    async def start_nothing(self: ServiceControl) -> None:
        pass

    monkeypatch.setattr(ServiceControl, "start_all", start_nothing)
    for second in range(5):
        served.budget.spend("mlx_server", float(second))
    assert served.budget.left("mlx_server", 10.0) == 0
    async with served.client.post("/recover/reset", json={}) as reply:
        assert reply.status == 202
    assert served.budget.left("mlx_server", 10.0) == 5


async def test_login_link_opens_one_session_and_is_refused_when_used_again(served):
    made = await served.client.post("/login-links", json={})
    assert made.status == 201
    url = (await made.json())["url"]
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(served.base, cookie_jar=jar) as browser:
        await refused(await browser.get("/status"), 401)
        landed = await browser.get(url, allow_redirects=False)
        assert (landed.status, landed.headers["Location"]) == (303, "/")
        cookie = landed.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (await browser.get("/status")).status == 200
        assert (await browser.post("/recover", json={})).status == 202
        # What a form of another page could send, cookie and all, is refused.
        await refused(await browser.post("/services/mlx_server/stop", data="x=1"), 415)
    async with aiohttp.ClientSession(
        served.base, cookie_jar=aiohttp.CookieJar(unsafe=True)
    ) as second_browser:
        await second_browser.get(url)
        await refused(await second_browser.get("/status"), 401)


async def test_events_stream_sends_missed_events_and_then_live_ones(served):
    first = served.journal.record("test", "first_happened", "cause", number=1)
    async with served.client.get(f"/events?since={first['seq'] - 1}") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert (await _next_event(stream))["event"] == "first_happened"
        served.journal.record("test", "second_happened")
        event = await _next_event(stream)
    assert (event["event"], event["component"]) == ("second_happened", "test")


async def test_head_request_to_an_event_stream_is_405_and_the_next_request_on_the_connection_is_answered(
    served,
):
    """The events of /events followed the head, so the client took them for the next response."""
    for path in ("/events", "/live"):
        reply = await served.client.head(path)
        assert (reply.status, reply.headers["Allow"]) == (405, "GET")
        assert (await served.client.get("/health")).status == 200


async def _next_event(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        async for line in stream.content:
            if line.startswith(b"data: "):
                event = json.loads(line.removeprefix(b"data: "))
                if event["component"] == "test":
                    return event
    raise AssertionError("the stream ended")


async def test_flood_of_refused_requests_leaves_one_event_in_the_journal(served):
    for _ in range(30):
        await served.client.get("/status", headers={"Authorization": "Bearer wrong"})
    denied = [e for e in served.journal.since(0) if e["event"] == "request_denied"]
    assert len(denied) == 1


async def test_metrics_healthy_is_1_if_the_status_is_healthy(served):
    status = await (await served.client.get("/status")).json()
    assert status["healthy"] is True
    text = await (await served.client.get("/metrics")).text()
    assert "vestal_healthy 1" in text


async def test_recover_request_whose_body_never_ends_is_408_and_closes_the_connection(
    served, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vestal.web.aiohttp_adapter.READ_WITHIN_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    head = (
        f"POST /recover HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
    )
    writer.write(head.encode())
    async with asyncio.timeout(WITHIN_S):
        assert b"408" in await reader.readline()
        await reader.read()  # and the connection is closed
    writer.close()


async def test_incidents_route_lists_incidents_and_returns_one_with_its_journal_lines(served):
    for service in ("mlx_engine", "ollama"):
        served.journal.record(service, "child_gave_up", "exit code 78", code=78)
    reply = await served.client.get("/incidents?limit=1")
    (newest,) = (await reply.json())["incidents"]
    assert newest["services"] == ["mlx_engine", "ollama"] and newest["open"]
    one = await (await served.client.get(f"/incidents/{newest['id']}")).json()
    assert [entry["component"] for entry in one["entries"]] == ["mlx_engine", "ollama"]
    assert one["sentence"] == newest["sentence"]
    assert (await served.client.get("/incidents/999")).status == 404
    for wrong in ("since=today", "since=nan", "limit=-1"):
        assert (await served.client.get(f"/incidents?{wrong}")).status == 400
    assert (await (await served.client.get("/incidents?since=99999999999")).json())["incidents"]
