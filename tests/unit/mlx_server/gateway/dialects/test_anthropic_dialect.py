"""Anthropic's dialect: messages become a chat for the template, answers become content blocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.anthropic.models import models
from mlx_server.gateway.dialects.anthropic.render import BlockEvents
from mlx_server.gateway.dialects.anthropic.schema import MessagesBody

CALL = AnswerToolCall("c", 0, "weather", {"city": "Oslo"})
PARTS = st.sampled_from(
    [
        AnswerPart("a"),
        AnswerPart(thinking="t"),
        AnswerPart(tool_calls=(CALL,)),
        AnswerPart("b", "u"),
        AnswerPart(),
    ]
)


def test_anthropic_tool_results_become_messages_before_the_text_of_their_message():
    use = {"type": "tool_use", "id": "c", "name": "weather", "input": {"city": "Oslo"}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "rain"}]}
    body: dict[str, Any] = {
        "model": "m",
        "max_tokens": 5,
        "system": [{"type": "text", "text": "Be kind."}],
        "messages": [
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, use]},
            {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
        ],
    }
    system, call, tool_result, text = MessagesBody.model_validate(body).to_request("m", 1).messages or ()
    assert system == {"role": "system", "content": "Be kind."}
    assert call["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert call["reasoning_content"] == "hm"
    assert tool_result == {"role": "tool", "content": "rain", "tool_call_id": "c"}
    assert text == {"role": "user", "content": "And now?"}


@given(st.lists(PARTS, max_size=8))
def test_anthropic_stream_opens_one_content_block_at_a_time_and_sends_all_content(parts):
    blocks = BlockEvents()
    events = [event for part in parts for event in blocks.add(part)] + blocks.close()
    opened: int | None = None
    count = tool_uses = 0
    text = thinking = ""
    for name, fields in events:
        match name:
            case "content_block_start":
                assert opened is None and fields["index"] == count
                opened, count = fields["index"], count + 1
                tool_uses += fields["content_block"]["type"] == "tool_use"
            case "content_block_delta":
                assert fields["index"] == opened
                text += fields["delta"].get("text", "")
                thinking += fields["delta"].get("thinking", "")
            case "content_block_stop":
                assert fields["index"] == opened
                opened = None
    assert opened is None
    assert text == "".join(part.text for part in parts)
    assert thinking == "".join(part.thinking for part in parts)
    assert tool_uses == sum(len(part.tool_calls) for part in parts)


@pytest.mark.parametrize(
    ("modified", "written"),
    [
        (0.5, "1970-01-01T00:00:00Z"),
        (3e11, "9999-12-31T23:59:59Z"),
        (-1e12, "0001-01-01T00:00:00Z"),
    ],
)
def test_anthropic_model_with_a_date_that_no_text_can_express_is_listed_with_the_nearest_one(
    modified, written
):
    """One file of a damaged disk, dated after the year 9999, made the list of all models a 500."""
    entry: Any = SimpleNamespace(name="m", modified=modified, context_tokens=1)
    assert models([entry], {})["data"][0]["created_at"] == written
