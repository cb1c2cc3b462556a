"""OpenAI's and Anthropic's clients repeat a request with its key, and get the answer already begun."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.lazy_packages import LazyPackage
from tests.services.gateways import Gateways, serving

if TYPE_CHECKING:
    import anthropic
    import openai
else:
    anthropic = LazyPackage("anthropic")
    openai = LazyPackage("openai")

TEXT = "retried tokens=40 step_ms=80"  # so slow that a busy machine lets the gateway be killed within it
KEY = {"Idempotency-Key": "7d0a3f"}
MESSAGES: Any = [{"role": "user", "content": TEXT}]


@pytest.fixture(scope="module")
def gateways(make_gateway: Callable[..., Any]) -> Iterator[Gateways]:
    """A gateway with the fake engine that the tests kill."""
    with serving(make_gateway()) as gateways:
        yield gateways


def _openai(url: str) -> tuple[str, int]:
    client = openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=5)
    answer = client.chat.completions.create(model="chat", messages=MESSAGES, extra_headers=KEY)
    assert answer.usage is not None
    return answer.id, answer.usage.completion_tokens


def _openai_responses(url: str) -> tuple[str, int]:
    client = openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=5)
    answer = client.responses.create(model="chat", input=TEXT, extra_headers=KEY | {"Idempotency-Key": "r"})
    assert answer.usage is not None
    return answer.id, answer.usage.output_tokens


def _anthropic(url: str) -> tuple[str, int]:
    client = anthropic.Anthropic(api_key="other", base_url=url, max_retries=5)
    answer = client.messages.create(model="chat", messages=MESSAGES, max_tokens=99, extra_headers=KEY)
    return answer.id, answer.usage.output_tokens


@pytest.mark.parametrize("ask", [_openai, _openai_responses, _anthropic])
def test_client_that_retries_with_an_idempotency_key_gets_the_answer_a_killed_gateway_began(
    gateways, ask: Callable[[str], tuple[str, int]]
):
    gateway, answers = gateways.gateway, gateways.gateway.home / "answers"
    gateway.until(lambda: not list(answers.glob("*.open")), "what came before has ended")
    found: list[tuple[str, int]] = []
    asking = threading.Thread(target=lambda: found.append(ask(gateway.url)))
    asking.start()
    (begun,) = gateway.until(lambda: list(answers.glob("*.open")), "it is written down")
    gateway.until(lambda: begun.stat().st_size > 2000, "some tokens are written down")
    gateways.kill()
    asking.join(60)
    ((answer_id, tokens),) = found
    assert tokens == 40
    assert begun.name.split(".")[1] in answer_id
