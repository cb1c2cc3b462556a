"""What is fetched becomes a part of the request, so that a resumed request fetches nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from mlx_server.gateway.answer_log import NoLog
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.body_budget import BodyBudget, BodyShare
from mlx_server.gateway.dialects.chat.images import with_images
from mlx_server.gateway.dialects.openai.schema import ChatBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.in_bodies import addresses_in, with_files
from mlx_server.gateway.kept_answers.kept_answer import KeptAnswer, keep
from tests.unit.mlx_server.gateway.images.test_headers import saved
from tests.unit.mlx_server.gateway.kept_answers.test_kept_answer import HEAD
from vestal.config import load

ADDRESS, PNG = "https://example.com/a.png", saved("PNG")


class Fetcher:
    """Stands in for the internet; `asked` has what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, max_bytes: int, max_total_bytes: int, reserve: Any) -> Any:
        self.reserve = reserve
        return self

    async def fetch(self, sources: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        self.asked += sources
        await self.reserve(len(PNG))
        return {address: PNG for _, address in sources}


def body_with(*addresses: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": each}} for each in addresses]
    return {
        "model": "eyes",
        "seed": 2**60,
        "messages": [{"role": "user", "content": parts}],
        "unknown": ["é"],
    }


async def asked(
    tmp_path: Path, given: dict[str, Any], fetcher: Fetcher, switch: bool = True
) -> tuple[Any, KeptAnswer]:
    """Return the body that the dialect receives, and the resumable answer."""
    config = load({"VESTAL_HOME": str(tmp_path), "VESTAL_MLX__IMAGE_URLS": str(switch).lower()}, tmp_path)
    answer = KeptAnswer(HEAD, NoLog(), lambda _: None)
    answer.body.add({"body": json.dumps(given).encode()})
    scope: dict[str, Any] = {"type": "http", "vestal.body_share": BodyShare(BodyBudget(10**9))}
    keep(scope, answer)
    context: Any = SimpleNamespace(config=config)
    model: Any = SimpleNamespace(
        capabilities=("completion", "vision"), no_images_reason="", name="eyes:latest"
    )
    body = validated(given, ChatBody)
    return await with_images(context, HTTPConnection(scope), model, body, fetcher), answer


async def test_fetched_image_is_part_of_the_request_and_of_its_record_for_a_resume(tmp_path):
    fetcher, given = Fetcher(), body_with(ADDRESS, ADDRESS)
    body, answer = await asked(tmp_path, given, fetcher)
    assert fetcher.asked == [(f"messages.0.content.{n}.image_url.url", ADDRESS) for n in (0, 1)]
    assert not addresses_in(body)
    written = json.loads(answer.body.peek())
    assert not addresses_in(written) and (written["seed"], written["unknown"]) == (2**60, ["é"])
    assert answer.body.digest == hashlib.sha256(json.dumps(given).encode()).hexdigest(), (
        "the body as it was sent"
    )
    again, _ = await asked(tmp_path, written, fetcher)
    assert again == body and len(fetcher.asked) == 2, "the next gateway asks nobody"


async def test_image_urls_are_not_fetched_unless_the_settings_allow_it(tmp_path):
    fetcher = Fetcher()
    body, answer = await asked(tmp_path, body_with(ADDRESS), fetcher, switch=False)
    assert not fetcher.asked and addresses_in(body) and json.loads(answer.body.peek()) == body_with(ADDRESS)


async def test_too_many_image_urls_are_refused_before_any_is_fetched(tmp_path):
    fetcher = Fetcher()
    with pytest.raises(BadRequest, match="may hold 32 images"):
        await asked(tmp_path, body_with(*(f"{ADDRESS}?{n}" for n in range(33))), fetcher)
    assert not fetcher.asked


def test_image_url_that_is_no_text_stays_in_the_body_beside_a_fetched_image():
    """The body's validation refuses it afterwards; this once was a TypeError."""
    urls: list[Any] = ["http://a.b/x.png", [], {}]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"messages": [{"role": "user", "content": parts}]}
    (fetched, *others) = with_files(body, {"http://a.b/x.png": b"x"})["messages"][0]["content"]
    assert fetched["image_url"]["url"].startswith("data:") and others == parts[1:]
