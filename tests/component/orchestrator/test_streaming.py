"""Streamed answers of a real host that hangs, stalls, breaks off or is only slow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest

from orchestrator.errors import BackendError, BackendFailed, BackendUnavailable
from orchestrator.llm import check
from orchestrator.llm.client import LlmClient
from orchestrator.llm.health import HealthBoard
from orchestrator.llm.liveness import SilenceLimits
from tests.component.orchestrator.conftest import Orchestrator, StandIn, wait_until

ASKED = [{"role": "user", "content": "one two three four"}]
SAID = "The answer to: one two three four"
PATIENT = SilenceLimits(first_s=60, next_s=60, check_s=0.1, misses=3)
STALLS_SOON = replace(PATIENT, next_s=2)
BEGINS_SOON = replace(PATIENT, first_s=2)


@pytest.fixture(autouse=True)
def checks_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let health checks wait for a host that a busy machine lets run only after seconds."""
    monkeypatch.setattr(check, "CHECK_TIMEOUT", aiohttp.ClientTimeout(total=60))


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


def client(session: aiohttp.ClientSession, *hosts: StandIn, limits: SilenceLimits = PATIENT) -> LlmClient:
    urls = {f"mlx-{n}" if n > 1 else "mlx": host.url for n, host in enumerate(hosts, 1)}
    return LlmClient(session, HealthBoard(session, urls), 2, limits)


async def ask(one: LlmClient) -> str:
    return await one.chat("smollm2:135m", ASKED, 64)


async def test_model_host_that_streams_its_answer_slowly_does_not_time_out(session, llm: StandIn):
    llm.control(word_s=0.8)  # 7 words take longer together than any single silence may
    assert await ask(client(session, llm, limits=replace(PATIENT, first_s=5, next_s=5))) == SAID
    assert llm.calls("/api/chat")[0]["stream"] is True


async def test_model_host_that_stalls_in_the_middle_of_an_answer_fails_the_call(session, llm: StandIn):
    llm.control(mode="stall")
    with pytest.raises(BackendUnavailable, match="in the middle of its answer"):
        await ask(client(session, llm, limits=STALLS_SOON))


async def test_model_host_suspended_before_its_first_token_fails_the_call_long_before_the_time_limit(
    session, llm: StandIn
):
    one = client(session, llm)
    assert await ask(one) == SAID
    one._limits = SilenceLimits(first_s=3600, next_s=3600, check_s=0.1, misses=1)
    llm.suspend()
    with pytest.raises(BackendUnavailable, match="stopped answering at all"):
        await ask(one)


async def test_model_host_that_does_not_begin_its_answer_in_time_fails_the_call(session, llm: StandIn):
    llm.control(hold=True)
    with pytest.raises(BackendUnavailable, match="before the first token"):
        await ask(client(session, llm, limits=BEGINS_SOON))


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("cut", BackendFailed, "broke off its answer"),
        ("fail", BackendFailed, "llama runner process has terminated"),
        ("drop", BackendUnavailable, "did not answer"),
    ],
)
async def test_model_host_that_breaks_off_its_answer_fails_the_call_with_a_retryable_error(
    session, llm: StandIn, mode: str, kind: type[BackendError], words: str
):
    llm.control(mode=mode)
    with pytest.raises(kind, match=words) as caught:
        await ask(client(session, llm))
    assert caught.value.retryable


@pytest.mark.parametrize("mode", ["cut", "fail", "drop"])
def test_task_whose_model_host_breaks_off_its_answer_is_retried_and_gets_the_whole_answer(
    shared: Orchestrator, shared_llm: StandIn, mode: str
):
    before = len(shared_llm.calls("/api/chat"))
    shared_llm.control(mode=mode)
    task_id = shared.submit("one two three")
    wait_until("it was tried again", lambda: len(shared_llm.calls("/api/chat")) >= before + 2)
    assert shared.task(task_id)["state"] == "running"
    shared_llm.control(mode="ok")
    assert shared.finished(task_id)["answer"] == "The answer to: one two three"
