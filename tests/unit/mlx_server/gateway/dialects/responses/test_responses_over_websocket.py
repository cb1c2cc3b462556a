"""Responses over a WebSocket that the next gateway knows, and those of which nothing is generated."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.mlx_server.gateway.dialects.responses.replaced_gateways import Conversation, Gateways


@pytest.fixture
def gateways(tmp_path: Path) -> Gateways:
    return Gateways(tmp_path)


async def test_websocket_turn_continues_a_response_stored_by_the_previous_gateway(gateways):
    async with gateways.next() as gateway:
        first = await gateway.response("one")
    async with gateways.next() as gateway:
        client = Conversation(gateway)
        events = await client.turn("two", previous_response_id=first["id"])
        assert events[-1]["type"] == "response.completed"
        assert gateway.engine.prompts == [[("user", "one"), ("assistant", "ok"), ("user", "two")]]
        await client.close()


async def test_response_stored_over_a_websocket_is_found_by_the_next_gateway(gateways):
    """It said `"store": true`, and was a 404 after a restart, because it was never written down."""
    async with gateways.next() as gateway:
        client = Conversation(gateway)
        first = (await client.turn("one"))[-1]["response"]
        events = await client.turn("two", previous_response_id=first["id"])
        second = events[-1]["response"]
        await client.close()
        assert second["store"] is True
        await gateway.http.delete(f"/v1/responses/{first['id']}")
    async with gateways.next() as gateway:
        status, shown = await gateway.get(f"/v1/responses/{second['id']}")
        assert (status, shown | {"completed_at": 0}) == (200, second | {"completed_at": 0})
        stream = await gateway.http.get(f"/v1/responses/{second['id']}?stream=true")
        assert [line[7:] for line in stream.text.split("\n") if line.startswith("event: ")] == [
            event["type"] for event in events
        ]
        await gateway.response("three", previous_response_id=second["id"])
        assert [text for _, text in gateway.engine.prompts[0]] == ["one", "ok", "two", "ok", "three"]


async def test_websocket_turns_that_are_not_stored_or_do_not_end_are_not_in_the_answer_log(gateways):
    """A turn that runs ends with its connection: the next gateway has nobody to finish it for."""
    async with gateways.next() as gateway:
        client = Conversation(gateway)
        await client.turn("one", store=False)
        gateway.engine.is_slow = True
        client.send("two")
        begun = (await client.events(("response.output_text.delta",)))[0]["response"]
        assert (await gateway.get(f"/v1/responses/{begun['id']}"))[1]["status"] == "in_progress"
        await client.close()
        assert (await gateway.get(f"/v1/responses/{begun['id']}"))[1]["status"] == "cancelled"
        await gateway.keeper.log.flush()
    assert not list((gateways.home / "answers").glob("*.v*"))


async def test_websocket_turn_without_tokens_for_the_keep_alive_interval_is_sent_an_in_progress_event(
    gateways, monkeypatch
):
    monkeypatch.setattr("mlx_server.gateway.dialects.answers.KEEP_ALIVE_S", 0.02)
    async with gateways.next() as gateway:
        gateway.engine.is_slow = True
        client = Conversation(gateway)
        client.send("one")
        await client.events(("response.output_text.delta",))
        assert (await client.events(("response.in_progress",)))[-1]["type"] == "response.in_progress"
        await client.close()


async def test_websocket_turn_with_generate_false_adds_no_assistant_message_to_the_conversation(gateways):
    """The conversation got an empty turn of the assistant, which the model then read."""
    async with gateways.next() as gateway:
        client = Conversation(gateway)
        events = await client.turn("one", generate=False, store=False)
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        prepared = events[-1]["response"]
        assert prepared["output"] == []
        await client.turn("two", previous_response_id=prepared["id"], store=False)
        assert gateway.engine.prompts[-1] == [("user", "one"), ("user", "two")]
        await client.close()


async def test_websocket_turn_in_a_gateway_that_has_handed_over_gets_a_503_error_event(gateways):
    """It was told that the response was never stored."""
    async with gateways.next() as gateway:
        first = await gateway.response("one")
    async with gateways.next() as gateway:
        client = Conversation(gateway)
        await gateway.keeper.close()
        (error,) = await client.turn("two", previous_response_id=first["id"])
        assert (error["type"], error["status"], error["error"]["code"]) == ("error", 503, "draining")
        await client.close()
        await asyncio.sleep(0)
