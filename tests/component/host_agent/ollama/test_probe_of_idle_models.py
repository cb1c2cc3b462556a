"""The probe of Ollama models that nobody uses: it does not keep them loaded, and misses no hung request."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime

from tests.component.host_agent.conftest import WITHIN_S
from tests.component.host_agent.ollama.conftest import SHORT_S, probe, wait_for_tokens

MODEL = "smollm2:135m"
BIG_MODEL = "qwen3:8b-with-a-long-name"  # the stand-in's models are as big as their names are long


async def until_later(server, than: datetime, model: str = MODEL) -> datetime:
    """Wait until Ollama has set the model's unload time anew, which it does just after the answer."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if (found := server.unload_time(model)) > than:
                return found
            await asyncio.sleep(0.01)


async def test_idle_ollama_model_is_probed_once_and_again_after_its_next_use(server, session):
    """Otherwise the probes would keep it loaded for ever."""
    server.misbehave(slots="idle")
    under_test = probe(server, session)
    for keep_alive in ({"keep_alive": "60s"}, {}):
        used = server.use(MODEL, **keep_alive)
        assert (await under_test.check()).verdict.ok
        probed = await until_later(server, used)
        assert (probed - used).total_seconds() < 120, "the probe has not changed the keep-alive to 300 s"
        for _ in range(3):
            assert (await under_test.check()).verdict.ok
        assert server.unload_time(MODEL) == probed


async def test_idle_ollama_model_is_not_probed_while_a_bigger_one_works(server, session):
    """The smallest model was once probed while any model worked, and so was never unloaded."""
    models = (MODEL, BIG_MODEL)
    server.misbehave(slots="idle", models=models)
    used = {model: server.use(model) for model in models}
    under_test = probe(server, session)
    for model in models:
        assert (await under_test.check()).verdict.ok
        probed = await until_later(server, used[model], model)
    idle_until = server.unload_time(MODEL)
    server.misbehave(slots="advance", models=models)
    for _ in range(2):
        assert (await under_test.check()).verdict.ok
        probed = await until_later(server, probed, BIG_MODEL)
        assert server.unload_time(MODEL) == idle_until


async def test_idle_ollama_model_is_probed_at_each_check_if_it_never_expires_or_is_the_configured_probe_model(
    server, session
):
    server.misbehave(slots="idle")
    used = server.use(MODEL, keep_alive=-1)
    under_test = probe(server, session)
    for _ in range(2):
        assert (await under_test.check()).verdict.ok
        used = await until_later(server, used)
    used = server.use(MODEL, keep_alive="60s")
    under_test = probe(server, session, probe_model=MODEL)
    for _ in range(2):
        assert (await under_test.check()).verdict.ok
        used = await until_later(server, used)


async def test_request_that_hangs_in_an_ollama_model_that_was_idle_is_noticed(server, session):
    server.misbehave(slots="idle")
    used = server.use(MODEL)
    under_test = probe(server, session, no_progress_s=1)
    assert (await under_test.check()).verdict.ok
    await until_later(server, used)
    assert (await under_test.check()).verdict.ok
    server.misbehave(hang="tokens", slots="stand")
    wait_for_tokens(under_test, SHORT_S)
    hangs = asyncio.create_task(asyncio.to_thread(server.ask, "/api/generate", model=MODEL, prompt="two"))
    async with asyncio.timeout(WITHIN_S):
        while (check := await under_test.check()).verdict.ok:
            pass
    assert "has made no progress for " in check.verdict.detail
    server.misbehave()
    with contextlib.suppress(OSError):
        await hangs
    wait_for_tokens(under_test)
    assert (await under_test.check()).verdict.ok


async def test_idle_ollama_model_is_probed_at_once_after_the_machine_woke(server, session):
    server.misbehave(slots="idle")
    used = server.use(MODEL)
    under_test = probe(server, session)
    assert (await under_test.check()).verdict.ok
    probed = await until_later(server, used)
    assert (await under_test.check()).verdict.ok
    server.misbehave(slots="idle", empty=True)
    assert (await under_test.check()).verdict.ok, "an idle model is not asked"
    under_test.reset()  # as the agent does after a sleep, in which a GPU may be lost
    assert not (await under_test.check()).verdict.ok
    await until_later(server, probed)
