"""Anthropic's messages in, and its content blocks out."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.dialects.answer_parts import AnswerPart, Call
from mlx_server.gateway.dialects.anthropic.routes import BlockStream
from mlx_server.gateway.dialects.anthropic.schema import MessagesBody
from mlx_server.protocol import ToolCall

CALL = Call("c", 0, ToolCall("weather", {"city": "Oslo"}))
PARTS = st.sampled_from(
    [AnswerPart("a"), AnswerPart(thinking="t"), AnswerPart(calls=(CALL,)), AnswerPart("b", "u"), AnswerPart()]
)


def test_results_of_tools_are_messages_of_their_own_before_what_is_said():
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
    system, asked, answer, said = MessagesBody.model_validate(body).to_request("m", 1).messages or ()
    assert system == {"role": "system", "content": "Be kind."}
    assert asked["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert asked["reasoning_content"] == "hm"
    assert answer == {"role": "tool", "content": "rain", "tool_call_id": "c"}
    assert said == {"role": "user", "content": "And now?"}


@given(st.lists(PARTS, max_size=8))
def test_blocks_open_and_close_one_at_a_time_and_hold_everything(parts):
    stream = BlockStream()
    events = [event for part in parts for event in stream.push(part)] + stream.close()
    opened: int | None = None
    count = 0
    text = thoughts = ""
    uses = 0
    for name, fields in events:
        match name:
            case "content_block_start":
                assert opened is None and fields["index"] == count
                opened, count = fields["index"], count + 1
                uses += fields["content_block"]["type"] == "tool_use"
            case "content_block_delta":
                assert fields["index"] == opened
                text += fields["delta"].get("text", "")
                thoughts += fields["delta"].get("thinking", "")
            case "content_block_stop":
                assert fields["index"] == opened
                opened = None
    assert opened is None
    assert text == "".join(part.text for part in parts)
    assert thoughts == "".join(part.thinking for part in parts)
    assert uses == sum(len(part.calls) for part in parts)
