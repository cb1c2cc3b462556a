"""What the input of a response means: items, tools, messages for the template, and what is omitted."""

from __future__ import annotations

import base64
from itertools import count
from typing import Any

import pytest

from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.responses.creation import translate
from mlx_server.gateway.dialects.responses.input_items import InputItems, read_input
from mlx_server.gateway.dialects.responses.messages import (
    chat_messages,
    opaque,
    text_of_opaque,
    unreadable_parts,
)
from mlx_server.gateway.dialects.responses.offered_tools import OfferedTools, offered_tools
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.errors import BadRequest, NotFound

USER = {"type": "message", "role": "user", "content": "hello"}
CALL = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "rain"}


def read(given: Any, earlier: Any = (), stored: Any = None) -> InputItems:
    numbers = count()
    return read_input(given, earlier, lambda prefix: f"{prefix}_{next(numbers)}", (stored or {}).get)


def messages(given: Any, instructions: str | None = None) -> list[dict[str, Any]]:
    return chat_messages(instructions, read(given).items)


def test_responses_api_text_input_becomes_a_user_message_with_an_id():
    assert read("hello").items == [
        {
            "type": "message",
            "id": "msg_0",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "hello"}],
        }
    ]


def test_responses_api_input_item_without_a_type_is_read_as_a_message():
    assert messages([{"role": "USER".lower(), "content": "hi"}]) == [{"role": "user", "content": "hi"}]


def test_responses_api_instructions_come_first_and_developer_messages_keep_their_position():
    given = [USER, {"role": "developer", "content": "Be brief."}, USER]
    assert messages(given, "You are Bob.") == [
        {"role": "system", "content": "You are Bob."},
        {"role": "user", "content": "hello"},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


def test_responses_api_reasoning_and_text_and_tool_calls_of_one_turn_become_one_assistant_message():
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    second = CALL | {"call_id": "c2"}
    outputs = [OUTPUT, OUTPUT | {"call_id": "c2", "output": [{"type": "input_text", "text": "snow"}]}]
    function = {"name": "weather", "arguments": {"city": "Oslo"}}
    assert messages([USER, reasoning, said, CALL, second, *outputs]) == [
        {"role": "user", "content": "hello"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "hm",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": function},
                {"id": "c2", "type": "function", "function": function},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "snow"},
    ]


def test_responses_api_assistant_messages_with_different_phases_are_not_joined():
    """The specification's suite sends a commentary and a final answer in a row."""
    given = [
        {"type": "message", "role": "assistant", "phase": "commentary", "content": "I look."},
        {"type": "message", "role": "assistant", "phase": "final_answer", "content": "Four."},
        USER,
    ]
    assert [message["content"] for message in messages(given)] == ["I look.", "Four.", "hello"]


def test_responses_api_reasoning_without_an_answer_is_omitted_from_the_chat():
    assert messages([{"type": "reasoning", "summary": [], "content": None}, USER]) == [
        {"role": "user", "content": "hello"}
    ]


def test_responses_api_reasoning_is_read_from_encrypted_content_rather_than_the_summary():
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "short"}]}
    said = {"role": "assistant", "content": "x"}
    (message,) = messages([reasoning | {"encrypted_content": opaque("in full ü")}, said])
    assert message["reasoning_content"] == "in full ü"
    (message,) = messages([reasoning | {"encrypted_content": "gAAAA-of-another-server"}, said])
    assert message["reasoning_content"] == "short"


def test_responses_api_encrypted_reasoning_of_another_server_is_ignored():
    assert text_of_opaque(opaque("a")) == "a"
    for foreign in ("", "gAAAAABpM0Yj", "ünicode", base64.b64encode(b"other").decode(), "////"):
        assert text_of_opaque(foreign) is None


def test_responses_api_compaction_becomes_a_user_message_and_a_foreign_compaction_is_refused():
    ours = {"type": "compaction", "encrypted_content": opaque("They agreed on Tuesday.")}
    (message,) = messages([ours])
    assert message["role"] == "user"
    assert message["content"].endswith("They agreed on Tuesday.")
    with pytest.raises(BadRequest, match="not made by this server"):
        messages([ours | {"encrypted_content": "gAAAAABpM0Yj"}])


def test_responses_api_tool_output_without_its_call_in_the_input_or_an_earlier_response_is_refused():
    with pytest.raises(BadRequest, match=r"input\.1\.call_id: no call has the id 'c1'"):
        read([USER, OUTPUT])
    assert len(read([OUTPUT], earlier=[CALL]).items) == 1


def test_responses_api_input_items_of_unsupported_types_are_skipped_and_their_types_listed():
    given = [USER, {"type": "web_search_call", "id": "ws_1"}, {"type": "local_shell_call", "x": []}, USER]
    found = read(given)
    assert len(found.items) == 2
    assert found.skipped == ["web_search_call", "local_shell_call"]


def test_responses_api_custom_tool_calls_in_the_input_become_function_calls():
    call = {"type": "custom_tool_call", "call_id": "c9", "name": "apply_patch", "input": "*** Begin"}
    output = {"type": "custom_tool_call_output", "call_id": "c9", "output": "ok"}
    asked, answered = messages([call, output])
    assert asked["tool_calls"][0]["function"] == {"name": "apply_patch", "arguments": {"input": "*** Begin"}}
    assert answered["content"] == "ok"


def test_responses_api_item_reference_is_replaced_by_the_stored_item_or_refused_as_not_found():
    stored = {"msg_9": read("earlier").items[0]}
    assert chat_messages(None, read([{"type": "item_reference", "id": "msg_9"}], stored=stored).items) == [
        {"role": "user", "content": "earlier"}
    ]
    assert read([{"id": "msg_9"}], stored=stored).items == [stored["msg_9"]]
    with pytest.raises(NotFound, match="was not found") as refused:
        read([USER, {"type": "item_reference", "id": "msg_0"}])
    assert refused.value.fields["param"] == "input.1.id"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({}, r"input\.0\.type: is missing"),
        ({"type": 5}, r"input\.0\.type: should be a string"),
        ({"type": "message", "role": "user"}, r"input\.0\.content: is missing"),
        ({"type": "message", "role": 5, "content": "x"}, r"input\.0\.role"),
        ({"type": "message", "role": "user", "content": [{"text": "x"}]}, r"input\.0\.content\.0\.type"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, r"input\.0\.call_id: is missing"),
        ({"type": "function_call_output", "call_id": "c", "output": 5}, r"input\.0\.output"),
        ({"type": "item_reference", "id": None}, r"input\.0\.id"),
    ],
)
def test_invalid_responses_input_item_is_refused_with_its_position(item, said):
    with pytest.raises(BadRequest, match=said):
        read([item])


def test_responses_api_input_image_for_a_text_model_is_replaced_by_a_note_that_an_image_was_there():
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    found = read([{"role": "user", "content": [{"type": "input_text", "text": "What is this?"}, image]}])
    (message,) = chat_messages(None, found.items)
    assert message["content"].startswith("What is this?")
    assert "type image" in message["content"]
    assert unreadable_parts(found.items) == ["input_image"]


def test_responses_api_input_file_with_text_is_added_to_the_prompt_and_a_pdf_is_reported_unreadable():
    def part(data: bytes, prefix: str = "") -> dict[str, str]:
        return {
            "type": "input_file",
            "filename": "notes.txt",
            "file_data": prefix + base64.b64encode(data).decode(),
        }

    found = read([{"role": "user", "content": [part("läuft".encode(), "data:text/plain;base64,")]}])
    assert "notes.txt" in messages([{"role": "user", "content": [part("läuft".encode())]}])[0]["content"]
    assert "läuft" in chat_messages(None, found.items)[0]["content"]
    assert unreadable_parts(found.items) == []
    pdf = read([{"role": "user", "content": [part(b"%PDF-1.1 (text)"), part(b"\xff\xfe\0")]}])
    assert unreadable_parts(pdf.items) == ["input_file"]


FUNCTION = {
    "type": "function",
    "name": "weather",
    "description": "x",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
OTHER = FUNCTION | {"name": "time"}


def test_responses_api_functions_are_offered_to_the_model_and_hosted_tools_are_skipped():
    """Codex offers functions, a namespace and web_search in one list."""
    namespace = {"type": "namespace", "name": "agents", "tools": [FUNCTION]}
    offered = offered_tools([FUNCTION, namespace, {"type": "web_search"}], "auto")
    assert offered.functions == (
        {
            "type": "function",
            "function": {"name": "weather", "description": "x", "parameters": FUNCTION["parameters"]},
        },
    )
    assert offered.skipped == ("namespace", "web_search")
    assert [tool["name"] for tool in offered.shown] == ["weather"]


def test_responses_api_function_in_the_form_of_chat_completions_is_offered_too():
    nested = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    offered = offered_tools([nested], None)
    assert offered.functions is not None
    assert offered.functions[0]["function"]["name"] == "weather"


def names_in(offered: OfferedTools) -> set[str]:
    schema = offered.call_schema
    assert schema is not None
    return {call["properties"]["name"]["const"] for call in schema.get("anyOf", [schema])}


def test_responses_api_tool_choice_that_forces_a_call_becomes_a_json_schema():
    tools = [FUNCTION, OTHER]
    assert names_in(offered_tools(tools, "required")) == {"weather", "time"}
    assert names_in(offered_tools(tools, {"type": "function", "name": "time"})) == {"time"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    offered = offered_tools(tools, allowed)
    assert names_in(offered) == {"time"}
    assert offered.functions is not None
    assert len(offered.functions) == 2, "the prompt keeps all tools, so that its cached prefix fits"


def test_responses_api_allowed_tools_in_mode_auto_restrict_calls_without_requiring_one():
    listed = [{"type": "function", "name": "time"}, {"type": "web_search"}]
    offered = offered_tools([FUNCTION, OTHER], {"type": "allowed_tools", "mode": "auto", "tools": listed})
    assert (offered.call_schema, offered.allowed) == (None, {"time"})
    assert offered.choice == {"type": "allowed_tools", "mode": "auto", "tools": listed[:1]}


def test_responses_api_custom_tool_is_offered_as_a_function_with_one_text_argument():
    """OpenAI's coding models call Codex's `apply_patch` in this way: its input is a patch and not JSON."""
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: WORD"}
    custom = {"type": "custom", "name": "apply_patch", "description": "Patch.", "format": grammar}
    offered = offered_tools([FUNCTION, custom], {"type": "custom", "name": "apply_patch"})
    assert (offered.custom, offered.shown[1], offered.skipped) == ({"apply_patch"}, custom, ())
    assert offered.choice == {"type": "custom", "name": "apply_patch"}
    assert names_in(offered) == {"apply_patch"} and offered.functions is not None
    function = offered.functions[1]["function"]
    assert list(function["parameters"]["properties"]) == ["input"]
    assert "start: WORD" in function["description"]


def test_responses_api_tool_choice_none_offers_no_function():
    assert offered_tools([FUNCTION], "none").functions is None


@pytest.mark.parametrize(
    ("tools", "choice", "said"),
    [
        ([FUNCTION], {"type": "web_search"}, "'web_search' is not served here"),
        ([FUNCTION], {"type": "custom", "name": "apply_patch"}, "'apply_patch' is not offered"),
        ([{"type": "web_search"}], "required", "web_search are not served here"),
        (
            [FUNCTION, {"type": "mcp"}],
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp"}]},
            "mcp are not served here",
        ),
        ([FUNCTION], {"type": "function", "name": "nix"}, "'nix' is not offered; there are: weather"),
        ([FUNCTION], {"type": "function"}, "tool_choice.name: is missing"),
        ([FUNCTION], "sometimes", "tool_choice: give"),
        ([FUNCTION], {"type": "allowed_tools"}, "tool_choice.tools"),
        ([{"type": "function"}], None, r"tools\.0\.name: is missing"),
        ([FUNCTION | {"parameters": []}], None, r"tools\.0\.parameters: should be a JSON schema"),
    ],
)
def test_responses_api_tool_choice_that_cannot_be_met_is_refused(tools, choice, said):
    with pytest.raises(BadRequest, match=said):
        offered_tools(tools, choice)


def body(**fields: Any) -> CreateBody:
    return validated({"model": "m", "input": "hello", **fields}, CreateBody)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"conversation": "conv_1"}, "previous_response_id"),
        ({"prompt": {"id": "pmpt_1"}}, "stored prompts"),
        ({"background": True, "store": False}, "store: true"),
        ({"input": None}, "input: is missing"),
    ],
)
def test_responses_api_body_with_an_unsupported_feature_is_refused(fields, said):
    with pytest.raises(BadRequest, match=said):
        body(**fields).check()


@pytest.mark.parametrize(
    "fields",
    [
        {"metadata": {str(number): "x" for number in range(17)}},
        {"metadata": {"k" * 65: "x"}},
        {"metadata": {"k": "x" * 513}},
        {"metadata": {"k": 1}},
        {"top_logprobs": 21},
        {"truncation": "sometimes"},
        {"text": {"format": {"type": "xml"}}},
    ],
)
def test_responses_api_field_beyond_openais_limits_is_refused_with_an_error_that_names_the_field(fields):
    with pytest.raises(BadRequest, match=next(iter(fields))):
        body(**fields)


def test_responses_api_fields_that_are_null_count_as_absent():
    given = body(**{name: None for name in CreateBody.model_fields if name not in ("model", "input")})
    given.check()
    assert given.sampling(7) == body().sampling(7)


@pytest.mark.parametrize("given", [None, -1])
def test_responses_api_request_with_max_output_tokens_missing_or_minus_one_is_unlimited(given):
    assert body(max_output_tokens=given).is_unlimited
    assert not body(max_output_tokens=5).is_unlimited


def test_responses_api_parallel_tool_calls_false_limits_the_answer_to_one_call():
    assert body(parallel_tool_calls=False, max_tool_calls=3).most_calls == 1
    assert body(max_tool_calls=3).most_calls == 3
    assert body().most_calls is None


@pytest.mark.parametrize(("given", "shortens"), [("auto", True), ("disabled", False), (None, False)])
def test_responses_api_truncation_auto_allows_the_engine_to_drop_the_oldest_turns(given, shortens):
    request = translate(body(input="hello", truncation=given), "m", 1).request
    assert (request.truncate, request.shift, request.shortens_text) == (shortens, shortens, False)
