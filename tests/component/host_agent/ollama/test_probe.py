"""The probe of Ollama's models: silence is a fault, and so is an empty answer."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest
from aiohttp import web

from host_agent.services.ollama import OllamaService
from host_agent.services.ollama.probe import OllamaProbe
from host_agent.services.ollama.runners import RunnerLook
from tests.component.host_agent.conftest import WITHIN_S
from tests.component.host_agent.ollama.conftest import SHORT_S, probe, wait_for_tokens
from vestal.config import load
from vestal.config.settings import OllamaSection
from vestal.supervision import Event, MemoryStateStore


async def test_ollama_check_without_a_loaded_model_loads_none(server, session):
    check = await probe(server, session).check()
    assert check.verdict.ok
    assert server.ask("/api/ps") == {"models": []}


async def test_ollama_check_with_a_configured_probe_model_loads_it(server, session):
    check = await probe(server, session, probe_model="all-minilm").check()
    assert check.verdict.ok
    assert [m["name"] for m in server.ask("/api/ps")["models"]] == ["all-minilm:latest"]


async def test_ollama_check_leaves_a_loaded_model_and_its_unload_time_unchanged(server, session):
    body = {"model": "smollm2:135m", "options": {"num_ctx": 2048}, "keep_alive": "60s"}
    server.use(**body)
    (before,), runners = server.ask("/api/ps")["models"], server.runners()
    under_test = probe(server, session)
    for _ in range(3):
        assert (await under_test.check()).verdict.ok
    (after,) = server.ask("/api/ps")["models"]
    assert server.runners() == runners
    assert after["context_length"] == 2048
    moved = datetime.fromisoformat(after["expires_at"]) - datetime.fromisoformat(before["expires_at"])
    assert abs(moved.total_seconds()) < 120, "a probe with Ollama's default would move it by four minutes"


@pytest.mark.parametrize("model", ["smollm2:135m", "all-minilm:latest"])
async def test_ollama_check_that_gets_an_empty_answer_fails_despite_status_200(server, session, model: str):
    server.ask("/api/embed" if "minilm" in model else "/api/generate", model=model, prompt="one", input="one")
    server.misbehave(empty=True)
    under_test = probe(server, session)
    assert not (await under_test.check()).verdict.ok
    server.misbehave()
    assert (await under_test.check()).verdict.ok


async def test_silent_ollama_is_busy_while_its_runner_uses_cpu_and_hung_when_the_runner_is_idle(
    server, session
):
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(hang="tokens", busy=True)
    await server.until_runner(busy=True)
    under_test = probe(server, session, SHORT_S)
    check = await under_test.check()
    assert (check.verdict.ok, check.verdict.busy) == (True, True)
    server.misbehave(hang="tokens")
    await server.until_runner(busy=False)
    async with asyncio.timeout(WITHIN_S):
        while (check := await under_test.check()).verdict.ok:
            pass  # the CPU time since the last look is from before
    assert "no token within" in check.verdict.detail
    server.misbehave()
    wait_for_tokens(under_test)
    assert (await under_test.check()).verdict.ok


async def test_silent_ollama_whose_runner_uses_cpu_without_progress_is_hung_after_the_time_limit(
    server, session
):
    """Earlier, a stalled prefill that burned CPU counted as busy for 15 minutes, again and again."""
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(hang="tokens", busy=True, slots="stand")
    await server.until_runner(busy=True)
    under_test = probe(server, session, SHORT_S, no_progress_s=2)
    check = await under_test.check()
    assert check.verdict.busy
    assert "after 2 s it counts as hung" in check.verdict.detail
    async with asyncio.timeout(WITHIN_S):
        while (check := await under_test.check()).verdict.ok:
            pass
    (runner,) = server.runners()
    assert f"its runner (PID {runner}) uses " in check.verdict.detail
    assert "has made no progress for " in check.verdict.detail
    assert "its /slots: slot 0 has read 512 and written 0 tokens" in check.verdict.detail
    for _ in range(3):
        assert not (await under_test.check()).verdict.ok
    server.misbehave()
    wait_for_tokens(under_test)
    assert (await under_test.check()).verdict.ok


async def test_silent_ollama_whose_runner_reads_further_tokens_stays_busy(server, session):
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(hang="tokens", slots="advance")  # as on a GPU: no CPU is used
    under_test = probe(server, session, SHORT_S, no_progress_s=0.2)
    await under_test.check()
    for _ in range(4):
        check = await under_test.check()
        assert check.verdict.busy
        assert "makes progress (its /slots: slot 0 has read " in check.verdict.detail


async def test_silent_ollama_whose_runner_does_not_answer_slots_requests_is_hung_after_the_time_limit(
    server, session, monkeypatch: pytest.MonkeyPatch
):
    """The same loop of llama-server computes and answers /slots: here that loop never returns."""
    monkeypatch.setattr("host_agent.services.ollama.runners.SLOTS_TIMEOUT_S", 2.0)
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(hang="tokens", busy=True, slots="hang")
    await server.until_runner(busy=True)
    under_test = probe(server, session, SHORT_S, no_progress_s=1)
    assert (await under_test.check()).verdict.busy
    check = await under_test.check()
    assert not check.verdict.ok
    assert "its /slots does not answer" in check.verdict.detail


async def test_silent_ollama_whose_runner_has_only_idle_slots_is_hung_at_once(server, session):
    """No slot works on the request: Ollama itself has lost the request."""
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(hang="tokens", slots="idle")
    check = await probe(server, session, SHORT_S).check()
    assert not check.verdict.ok
    assert "its slots are idle" in check.verdict.detail


async def test_silent_ollama_is_reported_once_as_busy_then_once_as_hung_if_its_runner_makes_no_progress(
    server, session, home
):
    events: list[Event] = []
    environment = {
        "VESTAL_HOME": str(home),
        "OLLAMA_BASE_URL": server.section.base_url,
        "VESTAL_OLLAMA__PROBE_INTERVAL_S": "0.001",
        "VESTAL_OLLAMA__NO_PROGRESS_S": "1",
    }
    config, store = load(environment, cwd=home), MemoryStateStore()
    under_test = OllamaService(config, session, store, events.append, token_timeout_s=SHORT_S)
    await under_test.check()
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(hang="tokens", slots="stand")
    for _ in range(3):
        await under_test.check()
    server.misbehave()
    wait_for_tokens(under_test._probe)
    assert (await under_test.check()).verdict.ok
    recorded = [(e.component, e.event, e.fields.get("judgement")) for e in events]
    assert recorded == [
        ("ollama", "silence_judged", "busy"),
        ("ollama", "silence_judged", "hangs"),
        ("ollama", "silence_ended", None),
    ]
    assert "its /slots: slot 0 has read 512" in events[1].cause


async def test_third_failed_ollama_check_in_a_row_means_down_and_requests_one_recovery_pass(
    server, session, home
):
    requested: list[str] = []
    environment = {
        "VESTAL_HOME": str(home),
        "OLLAMA_BASE_URL": server.section.base_url,
        "VESTAL_OLLAMA__PROBE_INTERVAL_S": "0.001",
    }
    config = load(environment, cwd=home)
    under_test = OllamaService(config, session, MemoryStateStore(), lambda event: None, requested.append)
    assert (await under_test.check_until_certain()).verdict.ok
    server.ask("/api/generate", model="smollm2:135m", prompt="one")
    server.misbehave(empty=True)
    observations = []
    for _ in range(3):
        await under_test.watch_once()
        observations.append((under_test.observation.failures, under_test.observation.is_down, len(requested)))
    assert observations == [(1, False, 0), (2, False, 0), (3, True, 1)]
    assert "Ollama is down: it answers 200 with an empty text" in requested[0]
    await under_test.watch_once()
    assert len(requested) == 1, "the failures after that request no further passes"
    under_test.machine_woke(60.0)
    assert (await under_test.check()).failures == 1, "what failed before the sleep does not count"
    server.misbehave()
    assert not (await under_test.check()).is_down


async def test_ollama_check_succeeds_if_its_probe_is_reset_while_the_check_waits(session, free_port):
    """A restart by hand resets the probe; the reset must not cancel the callers that wait for the check."""
    asked, port = asyncio.Event(), free_port()

    async def listed(request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.5", "models": [{"name": "smollm2:135m", "size": 1}]})

    async def never(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.add_routes([web.get(f"/api/{name}", listed) for name in ("version", "tags", "ps")])
    app.add_routes([web.post("/api/generate", never)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    look = RunnerLook(session, lambda: (), lambda: None)
    under_test = OllamaProbe(
        OllamaSection(base_url=f"http://127.0.0.1:{port}"), session, look, token_timeout_s=2 * WITHIN_S
    )
    checking = asyncio.create_task(under_test.check())
    await asyncio.wait_for(asked.wait(), WITHIN_S)
    under_test.reset()
    assert (await asyncio.wait_for(checking, WITHIN_S)).verdict.ok
    await runner.cleanup()
