"""Which tools a model is offered, and which calls count, as OpenAI's and Anthropic's clients ask for it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mlx_server import protocol
from mlx_server.gateway.dialects.answer_parts import AnswerPart, AnswerToolCall
from mlx_server.gateway.dialects.anthropic import render as anthropic_render
from mlx_server.gateway.dialects.anthropic.schema import MessagesBody
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.chat.tool_choice import CallFilter, CallRules
from mlx_server.gateway.dialects.openai import render as openai_render
from mlx_server.gateway.dialects.openai.schema import ChatBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader

HELLO = [{"role": "user", "content": "hello"}]
DONE = protocol.Done("r", "tool_calls", protocol.Usage(10, 3, cached_tokens=8))


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


def chat(**body: Any) -> ChatBody:
    return validated({"model": "m", "messages": HELLO, **body}, ChatBody)


def messages(**body: Any) -> MessagesBody:
    return validated({"model": "m", "messages": HELLO, "max_tokens": 5, **body}, MessagesBody)


def names(body: ChatBody | MessagesBody) -> list[str]:
    request = body.to_requests("m", 1)[0] if isinstance(body, ChatBody) else body.to_request("m", 1)
    return [each["function"]["name"] for each in request.tools or ()]


def call(number: int, name: str, **arguments: Any) -> AnswerToolCall:
    return AnswerToolCall(f"call_{number}", number, name, arguments)


# --- OpenAI ---


def allowed(mode: str) -> dict[str, Any]:
    some = [{"type": "function", "function": {"name": "a"}}]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": some}}


def test_allowed_tools_restrict_the_calls_and_leave_the_tools_of_the_prompt_unchanged():
    body = chat(tools=[tool("a"), tool("b")], tool_choice=allowed("auto"))
    assert names(body) == ["a", "b"]  # a shorter list would empty the prompt cache
    assert body.call_rules.allowed == {"a"}
    forced = chat(tools=[tool("a"), tool("b")], tool_choice=allowed("required")).to_requests("m", 1)[0]
    assert forced.json_schema is not None
    assert forced.json_schema["properties"]["name"] == {"const": "a"}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"type": "allowed_tools", "allowed_tools": {"mode": "maybe", "tools": []}}, "mode"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}, "list of tools"),
        ({"type": "web_search"}, "web_search"),
        ({"type": "custom", "custom": {}}, "tool_choice"),
        ({"type": "custom", "custom": {"name": "nix"}}, "nix"),
        (allowed("required"), "not offered"),
    ],
)
def test_tool_choice_that_cannot_be_followed_is_refused_with_an_error_that_names_the_fault(wrong, word):
    with pytest.raises(BadRequest, match=word):
        chat(tools=[tool("b")], tool_choice=wrong).to_requests("m", 1)


def test_hosted_tools_are_skipped_but_refused_if_a_call_is_required_and_no_other_tool_is_offered():
    body = chat(tools=[tool("a"), {"type": "web_search"}], web_search_options={})
    assert names(body) == ["a"]
    assert body.skipped(ImageReader("m"))["tools"] == ["web_search", "web_search_options"]
    with pytest.raises(BadRequest, match="web_search"):
        chat(tools=[{"type": "web_search"}], tool_choice="required").to_requests("m", 1)


def test_openai_custom_tool_takes_one_text_and_its_call_is_returned_as_a_custom_call():
    """Codex offers `apply_patch` in this way: its input is a patch and not JSON."""
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD"}}
    body = chat(
        tools=[{"type": "custom", "custom": {"name": "patch", "description": "d", "format": grammar}}]
    )
    (offered,) = body.to_requests("m", 1)[0].tools or ()
    assert list(offered["function"]["parameters"]["properties"]) == ["input"]
    assert "start: WORD" in offered["function"]["description"]
    part = AnswerPart(tool_calls=(call(0, "patch", input="*** Begin"),), done=DONE)
    choice = openai_choice(part, body)
    assert choice["message"]["tool_calls"] == [
        {"id": "call_0", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    ]
    past = {"role": "assistant", "content": None, "tool_calls": choice["message"]["tool_calls"]}
    sent = chat(messages=[*HELLO, past]).to_requests("m", 1)[0].messages or ()
    assert sent[1]["tool_calls"][0]["function"] == {"name": "patch", "arguments": {"input": "*** Begin"}}


def openai_choice(part: AnswerPart, body: ChatBody) -> dict[str, Any]:
    assert part.done is not None
    chunks = openai_render.AnswerChunks(
        openai_render.CHAT,
        "r",
        0,
        "m",
        prefixes=[""],
        answers_per_prompt=1,
        include_usage=False,
        rules=body.call_rules,
        uses_functions=body.uses_functions,
    )
    return chunks.whole([(part, part.done)])["choices"][0]


def test_openai_functions_in_the_deprecated_form_are_offered_and_answered_in_that_form():
    body = chat(functions=[{"name": "a"}], function_call={"name": "a"})
    request = body.to_requests("m", 1)[0]
    assert (names(body), request.tool_choice) == (["a"], "required")
    choice = openai_choice(AnswerPart(tool_calls=(call(0, "a", x=1), call(1, "a")), done=DONE), body)
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "a", "arguments": '{"x": 1}'}
    past = [
        {"role": "assistant", "content": None, "function_call": choice["message"]["function_call"]},
        {"role": "function", "name": "a", "content": "5"},
    ]
    sent = chat(messages=[*HELLO, *past]).to_requests("m", 1)[0].messages or ()
    assert sent[1]["tool_calls"][0]["function"] == {"name": "a", "arguments": {"x": 1}}
    assert sent[2] == {"role": "tool", "content": "5", "name": "a"}


# --- the calls that count ---


def test_tool_calls_beyond_the_first_are_dropped_if_parallel_calls_are_off():
    for body in (
        chat(tools=[tool("a")], parallel_tool_calls=False),
        messages(tools=[{"name": "a"}], tool_choice={"type": "auto", "disable_parallel_tool_use": True}),
    ):
        kept = CallFilter(body.call_rules)
        found = [kept.apply(AnswerPart(tool_calls=(call(n, "a"),))) for n in range(3)]
        assert [len(part.tool_calls) for part in found] == [1, 0, 0]
        assert kept.apply(AnswerPart(done=DONE)).done == DONE


def test_tool_call_that_is_not_allowed_becomes_text_and_the_others_are_numbered_anew():
    kept = CallFilter(CallRules(frozenset({"a"})))
    part = kept.apply(AnswerPart("x ", tool_calls=(call(0, "b", y=1), call(1, "a")), done=DONE))
    assert json.loads(part.text.removeprefix("x ")) == {"name": "b", "arguments": {"y": 1}}
    assert [(each.name, each.index) for each in part.tool_calls] == [("a", 0)]
    only_text = CallFilter(CallRules(frozenset())).apply(AnswerPart(tool_calls=(call(0, "b"),), done=DONE))
    assert only_text.done is not None and only_text.done.reason == "stop"


# --- Anthropic ---


@pytest.mark.parametrize(
    ("tool_type", "name", "argument"),
    [
        ("bash_20250124", "bash", "command"),
        ("text_editor_20250728", "str_replace_based_edit_tool", "old_str"),
        ("text_editor_20250124", "str_replace_editor", "insert_line"),
        ("memory_20250818", "memory", "old_path"),
    ],
)
def test_anthropic_tools_that_the_client_runs_are_offered_with_their_arguments(tool_type, name, argument):
    (offered,) = messages(tools=[{"type": tool_type, "name": name}]).to_request("m", 1).tools or ()
    function = offered["function"]
    assert function["name"] == name and function["description"]
    assert argument in function["parameters"]["properties"]


@pytest.mark.parametrize(
    "service",
    [
        {"type": "web_search_20260318", "name": "web_search"},
        {"type": "code_execution_20260521", "name": "code_execution"},
        {"type": "computer_toolset_20260801"},
        {"type": "mcp_toolset", "mcp_server_name": "x"},
    ],
)
def test_anthropic_server_tools_are_skipped_but_refused_if_the_client_forces_a_call_of_one(service):
    body = messages(tools=[{"name": "a"}, service], mcp_servers=[{"url": "x"}])
    assert names(body) == ["a"]
    assert body.skipped(ImageReader("m"))["tools"] == [service["type"], "mcp_servers"]
    with pytest.raises(BadRequest, match=service["type"]):
        messages(tools=[service], tool_choice={"type": "any"}).to_request("m", 1)
    if "name" in service:
        choice = {"type": "tool", "name": service["name"]}
        with pytest.raises(BadRequest, match=service["type"]):
            messages(tools=[{"name": "a"}, service], tool_choice=choice).to_request("m", 1)


def test_anthropic_tool_without_a_name_is_refused_with_its_position():
    wrong: dict[str, Any]
    for wrong in ({"type": "bash_20250124"}, {"input_schema": {}}):
        with pytest.raises(BadRequest, match=r"tools.1.name: is missing"):
            messages(tools=[{"name": "a"}, wrong]).to_request("m", 1)


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_anthropic_output_format_constrains_the_answer_to_its_schema(field):
    """`messages.parse` of Anthropic's client sends it; it was once ignored, and the answer was prose."""
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    wanted = {"type": "json_schema", "schema": schema}
    body = messages(**{field: {"format": wanted} if field == "output_config" else wanted})
    assert body.to_request("m", 1).json_schema == schema
    for wrong in ({"type": "json_schema"}, {"type": "xml"}):
        with pytest.raises(BadRequest, match="output_config.format"):
            messages(output_config={"format": wrong}).to_request("m", 1)


def test_claude_code_request_fields_are_accepted_and_set_thinking_effort_and_user():
    body = messages(
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "high"},
        metadata={"user_id": "u"},
        cache_control={"type": "ephemeral"},
        top_k=-1,
        temperature=-1,
    )
    request = body.to_request("m", 1)
    assert (request.think, request.template, body.user) == (None, {"reasoning_effort": "high"}, "u")
    assert messages(thinking={"type": "disabled"}).to_request("m", 1).think is False
    enabled = messages(thinking={"type": "enabled", "budget_tokens": 1024}).to_request("m", 1)
    assert (enabled.think, enabled.template) == (None, {"enable_thinking": True})


def test_anthropic_usage_counts_cached_tokens_separately():
    """`input_tokens` counts only tokens not in the cache; the prompt has the sum of the three counts."""
    whole = anthropic_render.whole_message("r", "m", AnswerPart("x", done=DONE), DONE)
    events = anthropic_render.MessageEvents("r", "m", 10)
    *_, delta = events.part(0, AnswerPart("x", done=DONE))
    for usage in (whole["usage"], msgspec.json.decode(delta.partition(b"data: ")[2])["usage"]):
        assert usage["input_tokens"] == 2
        assert usage["cache_read_input_tokens"] == 8
        assert usage["cache_creation_input_tokens"] == 0
        assert usage["output_tokens"] == 3
