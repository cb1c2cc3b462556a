"""A body of any shape becomes a model request or a BadRequest and nothing else; and what the fields mean."""

from __future__ import annotations

import contextlib
import math
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_server import protocol
from mlx_server.gateway.dialects.anthropic import schema as anthropic_schema
from mlx_server.gateway.dialects.bodies import parsed_object, validated
from mlx_server.gateway.dialects.ollama import schema as ollama_schema
from mlx_server.gateway.dialects.openai import schema as openai_schema
from mlx_server.gateway.dialects.rerank import schema as rerank_schema
from mlx_server.gateway.dialects.responses import creation as responses
from mlx_server.gateway.dialects.responses import schema as responses_schema
from mlx_server.gateway.dialects.tools import call_schema
from mlx_server.gateway.errors import BadRequest, TooLarge
from mlx_server.gateway.requests.sendable import repeated, sendable

HELLO = [{"role": "user", "content": "hello"}]
FIELD_NAMES = """
    model name messages prompt input options stream keep_alive format think tools stop seed n temperature
    max_tokens max_completion_tokens stream_options response_format tool_choice images raw system num_predict
    top_k role content thinking type input_schema json_schema schema logprobs parameters tool_calls function
    arguments encoding_format dimensions instructions text reasoning include metadata call_id output
    logit_bias functions function_call output_config output_format mcp_servers echo custom
    refusal source title
"""
FIELDS = FIELD_NAMES.split()
SCALARS = (
    st.sampled_from(["nan", "inf", "-1e999"])
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["user", "json", "5m", HELLO]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=6).map(lambda body: {"model": "m", **body})
SCHEMAS = [
    ollama_schema.ChatBody,
    ollama_schema.GenerateBody,
    ollama_schema.EmbedBody,
    ollama_schema.EmbeddingsBody,
    openai_schema.ChatBody,
    openai_schema.CompletionBody,
    openai_schema.EmbeddingsBody,
    anthropic_schema.MessagesBody,
    rerank_schema.RankingBody,
    responses_schema.CreateBody,
]


def _request(schema, body):
    """Return the first model request that the body means; the drawn seed is 1."""
    valid = validated(body, schema)
    if isinstance(valid, responses_schema.CreateBody):
        valid.check()
        return responses.translate(valid, "m:latest", 1).request
    if hasattr(valid, "to_requests"):
        return valid.to_requests("m:latest", 1)[0]
    if "Embed" in schema.__name__ or schema is rerank_schema.RankingBody:
        return valid.to_request("m:latest")
    return valid.to_request("m:latest", 1)


@pytest.mark.parametrize("schema", SCHEMAS)
@settings(max_examples=60, deadline=None)
@given(body=BODIES)
def test_request_body_of_any_shape_becomes_a_request_or_a_bad_request(schema, body):
    try:
        request = _request(schema, body)
    except BadRequest:
        return
    try:
        sent = sendable(request).frame("r1", [5])
    except BadRequest:
        return
    assert isinstance(protocol.decode_op(sent), protocol.Generate | protocol.Embed | protocol.Rerank)


@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=60) | st.text(alphabet='{}[]",:0\\ueE+-. ', max_size=20).map(str.encode))
def test_request_body_of_any_bytes_is_parsed_to_an_object_or_refused_as_a_bad_request(raw):
    with contextlib.suppress(BadRequest):
        assert isinstance(parsed_object(raw), dict)


def test_ollama_chat_without_options_has_ollamas_defaults_and_the_seed_of_the_gateway():
    sampling = _request(ollama_schema.ChatBody, {"model": "m", "messages": HELLO}).sampling
    assert (sampling.seed, sampling.temperature, sampling.top_k, sampling.top_p) == (1, 0.8, 40, 0.9)


@pytest.mark.parametrize(
    ("keep_alive", "keep_alive_s"),
    [("5m", 300.0), (0, 0.0), ("0", 0.0), (-1, -1.0), ("-1m", -1.0), (2.5, 2.5), (None, None)],
)
def test_ollama_keep_alive_in_each_form_is_read_as_seconds(keep_alive, keep_alive_s):
    body = {"model": "m", "keep_alive": keep_alive}
    assert validated(body, ollama_schema.ChatBody).keep_alive_s == keep_alive_s


@pytest.mark.parametrize(("num_predict", "limit"), [(5, 5), (5.0, 5), (-1, None), (-2, None), (0, None)])
def test_ollama_num_predict_that_is_not_positive_means_unlimited(num_predict, limit):
    body = {"model": "m", "prompt": "a", "options": {"num_predict": num_predict}}
    assert _request(ollama_schema.GenerateBody, body).max_tokens == limit


def test_stop_strings_given_as_text_or_list_lose_only_the_empty_ones():
    body: dict[str, Any] = {"model": "m", "messages": HELLO, "stop": "END"}
    assert _request(openai_schema.ChatBody, body).stop == ("END",)
    body = {"model": "m", "messages": HELLO, "options": {"stop": ["a", ""]}}
    assert _request(ollama_schema.ChatBody, body).stop == ("a",)


def test_openai_tool_call_for_the_template_has_its_arguments_as_an_object():
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    request = _request(openai_schema.ChatBody, {"model": "m", "messages": messages})
    assert request.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert request.messages[1]["content"] == ""


def test_openai_developer_message_becomes_a_system_message():
    request = _request(openai_schema.ChatBody, {"model": "m", "messages": [HELLO[0] | {"role": "developer"}]})
    assert request.messages[0]["role"] == "system"


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}},
            "$defs": {"city": {"type": "string"}},
        },
    },
}


def test_openai_forced_tool_becomes_the_json_schema_of_its_call():
    choice = {"type": "function", "function": {"name": "weather"}}
    body = {"model": "m", "messages": HELLO, "tools": [TOOL], "tool_choice": choice}
    request = _request(openai_schema.ChatBody, body)
    schema = request.json_schema
    assert schema["properties"]["name"] == {"const": "weather"}
    moved = schema["$defs"]["arguments0"]
    assert moved["properties"]["city"] == {"$ref": "#/$defs/arguments0/$defs/city"}
    assert request.operation().tool_choice == "required"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": "sometimes"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "nix"}}},
        {"tools": [{"type": "function"}]},
        {"tools": [{"type": "function", "function": {"name": "x", "parameters": "y"}}]},
    ],
)
def test_openai_tools_that_are_invalid_are_refused_with_a_message_that_names_the_fault(wrong):
    with pytest.raises(BadRequest, match="tool"):
        _request(openai_schema.ChatBody, {"model": "m", "messages": HELLO} | wrong)


def test_tool_call_schema_of_deeply_nested_parameters_is_refused():
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"properties": {"a": deep}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": deep}}]
    with pytest.raises(BadRequest, match="deep"):
        call_schema(tools)


def test_openai_request_for_n_answers_becomes_requests_with_different_seeds():
    body = {"model": "m", "prompt": ["a", "b"], "n": 2, "seed": 7}
    valid = openai_schema.CompletionBody.model_validate(body)
    assert valid.answer_count == 4
    requests = repeated([sendable(request) for request in valid.to_requests("m", 1)], 2)
    sent = [protocol.decode_op(request.frame("r", ())) for request in requests]
    assert [(op.prompt, op.sampling.seed) for op in sent if isinstance(op, protocol.Generate)] == [
        ("a", 7),
        ("a", 8),
        ("b", 9),
        ("b", 10),
    ]


def test_openai_tool_choice_none_removes_the_tools_from_the_request():
    body = {"model": "m", "messages": HELLO, "tools": [TOOL]}
    assert _request(openai_schema.ChatBody, body).tools == (TOOL,)
    assert _request(openai_schema.ChatBody, body | {"tool_choice": "none"}).tools is None


@pytest.mark.parametrize(
    ("schema", "body", "sentence"),
    [
        (ollama_schema.EmbedBody, {"input": [1, 2]}, "input.0: should be a string (given: 1)"),
        (ollama_schema.EmbedBody, {"input": {}}, "input: should be a string or a list (given: {})"),
        (
            ollama_schema.ChatBody,
            {"keep_alive": True},
            "keep_alive: should be a string or a number (given: true)",
        ),
        (openai_schema.ChatBody, {"messages": [3]}, "messages.0: should be an object (given: 3)"),
        (openai_schema.ChatBody, {}, "messages: is missing"),
        (openai_schema.ChatBody, {"messages": []}, "messages: should have at least 1 item (given: [])"),
        (
            openai_schema.ChatBody,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]},
            "messages.0.content.0.text: should be a string (given: 3)",
        ),
        (
            openai_schema.TextBody,
            {"stream_options": "usage"},
            'stream_options: should be an object (given: "usage")',
        ),
    ],
)
def test_refusal_of_a_wrong_field_names_the_field_and_the_fault_in_json_terms(schema, body, sentence):
    with pytest.raises(BadRequest) as caught:
        validated({"model": "m", **body}, schema)
    assert caught.value.message == sentence


@pytest.mark.parametrize("schema", SCHEMAS)
@settings(max_examples=40, deadline=None)
@given(body=BODIES)
def test_refusal_of_any_request_body_does_not_name_internal_validator_classes(schema, body):
    try:
        _request(schema, body)
    except BadRequest as refused:
        words = refused.message.partition(" (given:")[0]
        assert not any(
            word in words for word in ("Body", "[str]", ".str", ".dict", "instance", "function-", "Input")
        )


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (ollama_schema.EmbedBody, {"input": [1] * 300_000}),
        (openai_schema.CompletionBody, {"prompt": [1.5] * 300_000}),
        (ollama_schema.ChatBody, {"messages": [1] * 300_000}),
        (openai_schema.ChatBody, {"messages": HELLO, "tools": [1] * 300_000}),
        (ollama_schema.ChatBody, {"options": {"stop": [1] * 300_000}}),
    ],
)
def test_refusal_of_a_list_of_many_wrong_items_stops_at_the_first_item(schema, body):
    """A report on every item once took ten seconds and gigabytes, and delayed every other client."""
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="should be"):
            validated({"model": "m", **body}, schema)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("x" * 5_000_000, '"' + "x" * 56 + "..."),
        ([["\u00e4" * 1_000_000] * 100] * 100, '[["' + "\\u00e4" * 9 + "..."),
        ({"k" * 1_000_000: 1}, '{"' + "k" * 55 + "..."),
        ({"a": [1, {"b": None}], "c": "d"}, '{"a": [1, {"b": null}], "c": "d"}'),
        ([], "[]"),
    ],
)
def test_refusal_of_a_long_wrong_value_shows_only_its_first_characters(value, shown):
    with pytest.raises(BadRequest) as caught:
        validated({"model": "m", "stream": value}, ollama_schema.ChatBody)
    assert caught.value.message == f"stream: should be true or false (given: {shown})"


def past_calls(*arguments: str) -> list[dict[str, Any]]:
    calls = [{"type": "function", "function": {"name": "f", "arguments": text}} for text in arguments]
    return [*HELLO, {"role": "assistant", "content": "", "tool_calls": calls}]


@pytest.mark.parametrize("schema", [openai_schema.ChatBody, ollama_schema.ChatBody])
def test_past_tool_calls_with_too_many_argument_values_together_are_refused_before_parsing(schema):
    """These arguments are texts in the body, so the count of the body's values does not include theirs."""
    some = '{"x": [' + "[]," * 40_000 + "[]]}"
    body = {"model": "m", "messages": past_calls(*[some] * 5)}
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge, match="texts, lists and objects"):
            _request(schema, body)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()
    assert _request(schema, {"model": "m", "messages": past_calls(some)})


@pytest.mark.parametrize("schema", [openai_schema.ChatBody, ollama_schema.ChatBody])
@pytest.mark.parametrize(
    "arguments",
    [
        '{"x": NaN}',
        '{"x": ',
        "[1]",
        '"text"',
        '{"a":' * 5000 + "1" + "}" * 5000,
        '{"a":' * 600 + "1" + "}" * 600,
        '{"x": ' + "9" * 5000 + "}",
        '{"x": 1e999}',
    ],
    ids=lambda arguments: arguments[:12],
)
def test_past_tool_call_arguments_that_are_not_a_json_object_are_shown_to_the_model_as_they_were(
    schema, arguments
):
    """They were a 400, and so was every later turn of a chat in which a model had misspelled a call."""
    request = _request(schema, {"model": "m", "messages": past_calls("{}", arguments)})
    functions = [call["function"] for call in request.messages[1]["tool_calls"]]
    assert [function["arguments"] for function in functions] == [{}, {"arguments": arguments}]
    assert sendable(request)


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ("", {}),
        ("null", {}),
        ('{"x": "\\ud83d!", "\\udc00": 1}', {"x": "\ufffd!", "\ufffd": 1}),
        ('{"x": "\\ud83d\\ude00"}', {"x": "😀"}),
        ('{"x": [' + "1," * 60_000 + "1]}", {"x": [1] * 60_001}),
    ],
)
def test_arguments_string_of_a_past_tool_call_becomes_an_object_without_lone_surrogates(arguments, read):
    request = _request(openai_schema.ChatBody, {"model": "m", "messages": past_calls(arguments)})
    assert request.messages[1]["tool_calls"][0]["function"]["arguments"] == read


OLLAMA_CHAT = {"model": "m", "messages": HELLO}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_k": -1}, {"top_k": 0}),
        ({"temperature": -1}, {"temperature": 0.0}),
        ({"top_p": 1.5}, {"top_p": 1.0}),
        ({"top_p": 0}, {"temperature": 0.0}),
        ({"top_p": -1}, {"temperature": 0.0}),
        ({"min_p": 2}, {"min_p": 1.0}),
        ({"repeat_penalty": 0}, {"repeat_penalty": 1.0}),
        ({"repeat_penalty": -1.0}, {"repeat_penalty": 1.0}),
    ],
)
def test_ollama_sampling_option_outside_its_range_is_replaced_by_a_valid_value_instead_of_being_refused(
    options, expected
):
    """n8n (top_k -1) and Open WebUI send such values; they were once refused, and top_p 0 drew any token."""
    sampling = _request(ollama_schema.ChatBody, {**OLLAMA_CHAT, "options": options}).sampling
    assert {name: getattr(sampling, name) for name in expected} == expected


@pytest.mark.parametrize(("num_ctx", "tokens"), [(0, None), (-1, None), (512, 512), (512.0, 512)])
def test_ollama_num_ctx_that_is_not_positive_means_the_models_own_context(num_ctx, tokens):
    body = {**OLLAMA_CHAT, "options": {"num_ctx": num_ctx}}
    assert _request(ollama_schema.ChatBody, body).context_tokens == tokens


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_openai_token_limit_of_minus_one_lets_the_answer_fill_the_context(field):
    """Examples of LM Studio and llama.cpp send a limit of -1."""
    body = {"model": "m", "messages": HELLO, field: -1}
    assert _request(openai_schema.ChatBody, body).max_tokens == 2**31 - 1
    body = {"model": "m", "prompt": "a", "max_tokens": -1}
    assert _request(openai_schema.CompletionBody, body).max_tokens == 2**31 - 1
    assert _request(openai_schema.CompletionBody, {"model": "m", "prompt": "a"}).max_tokens == 16
    with pytest.raises(BadRequest, match=field):  # no limit to some servers, no token to others
        _request(openai_schema.ChatBody, {"model": "m", "messages": HELLO, field: 0})


@pytest.mark.parametrize("limit", [2**31, 10**12])
@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (openai_schema.ChatBody, "max_tokens"),
        (openai_schema.ChatBody, "max_completion_tokens"),
        (openai_schema.CompletionBody, "max_tokens"),
        (anthropic_schema.MessagesBody, "max_tokens"),
        (responses_schema.CreateBody, "max_output_tokens"),
    ],
)
def test_token_limit_beyond_32_bits_lets_the_answer_fill_the_context(schema, field, limit):
    """Some clients send the largest number they know for "no limit"."""
    prompt = {"input": "a"} if schema is responses_schema.CreateBody else {"prompt": "a", "messages": HELLO}
    body = {"model": "m", field: limit, **prompt}
    assert _request(schema, body).max_tokens == 2**31 - 1


@pytest.mark.parametrize("schema", [openai_schema.CompletionBody, anthropic_schema.MessagesBody])
def test_token_limit_of_zero_generates_nothing_if_the_api_allows_it(schema):
    """lm-eval scores a text with `max_tokens: 0`; Anthropic's clients fill the prompt cache with it."""
    body = {"model": "m", "messages": HELLO, "prompt": "a", "max_tokens": 0}
    assert _request(schema, body).max_tokens == 0


def test_openai_suffix_asks_for_the_text_between_prompt_and_suffix():
    body = {"model": "m", "prompt": "def f(", "suffix": "return 1"}
    assert _request(openai_schema.CompletionBody, body).suffix == "return 1"
    assert _request(openai_schema.CompletionBody, body | {"suffix": ""}).suffix is None


@pytest.mark.parametrize("schema", [openai_schema.ChatBody, anthropic_schema.MessagesBody])
def test_top_p_of_zero_draws_the_most_probable_token_in_every_dialect(schema):
    body = {"model": "m", "messages": HELLO, "max_tokens": 5, "top_p": 0, "top_k": -1, "temperature": 0.9}
    sampling = _request(schema, body).sampling
    assert (sampling.temperature, sampling.top_k) == (0.0, 0)


@pytest.mark.parametrize(
    "field", ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"]
)
@pytest.mark.parametrize("value", [True, "1", [], float("inf"), 10**400])
def test_sampling_setting_that_is_no_number_or_too_large_is_refused_with_an_error_naming_it(field, value):
    if field in ("top_p", "min_p", "max_tokens") and value in (10**400, math.inf):
        return  # the nearest end
    with pytest.raises(BadRequest, match=field):
        _request(openai_schema.ChatBody, {"model": "m", "messages": HELLO, field: value})


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (ollama_schema.ChatBody, ("options", "stop")),
        (openai_schema.ChatBody, ("stop",)),
        (openai_schema.CompletionBody, ("stop",)),
        (anthropic_schema.MessagesBody, ("stop_sequences",)),
    ],
)
@pytest.mark.parametrize(
    ("stop", "word"), [(["zz"] * 131_000, "256 items"), (["z" * 1_000_000], "1000 char")]
)
def test_too_many_or_too_long_stop_strings_are_refused_in_every_api_with_an_error_naming_the_limit(
    schema, field, stop, word
):
    body: dict[str, Any] = {"model": "m", "messages": HELLO, "prompt": "x", "max_tokens": 5}
    with pytest.raises(BadRequest, match=f"{'.'.join(field)}.*at most {word}"):
        validated(body | ({field[0]: {field[1]: stop}} if field[1:] else {field[0]: stop}), schema)
    stop = [text[:1000] for text in stop[:256]]
    validated(body | ({field[0]: {field[1]: stop}} if field[1:] else {field[0]: stop}), schema)
