"""An answer with a given JSON schema may be a call of an offered tool instead, in every dialect."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.harmony_tokens import HarmonyTokens
from mlx_server.engine.generation.output_parser import OutputMarkers, OutputPiece
from mlx_server.engine.grammar import grammars
from mlx_server.engine.grammar.answer_or_calls import answer_schema
from mlx_server.engine.grammar.grammars import MAX_SCHEMA_CHARS, Grammars
from mlx_server.engine.scheduling.runners.prompt_preparation import PromptPreparation, grammar_schema
from mlx_server.engine.scheduling.runners.text_preparation import TextPreparation
from mlx_server.gateway.dialects.anthropic.schema import MessagesBody
from mlx_server.gateway.dialects.bodies import validated
from mlx_server.gateway.dialects.ollama.schema import ChatBody as OllamaChatBody
from mlx_server.gateway.dialects.openai.schema import ChatBody
from mlx_server.gateway.dialects.responses.creation import translate
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.requests.model_requests import ANY_OBJECT, GenerationRequest
from mlx_server.gateway.requests.sendable import sendable
from mlx_server.protocol import Generate, ToolCall

HELLO = [{"role": "user", "content": "hello"}]
ENDLESS = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
FUNCTIONS: list[dict[str, Any]] = [
    {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    {"name": "clock"},
    {"name": "endless", "parameters": ENDLESS},  # no grammar can express it, and a chat may offer it
]
TOOLS = [{"type": "function", "function": function} for function in FUNCTIONS]
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"$ref": "#/$defs/answer"}},
    "required": ["answer"],
    "$defs": {"answer": {"type": "string"}},
}
ANSWER = '{"answer": "rain"}'
OSLO, TIME = '{"name": "weather", "arguments": {"city": "Oslo"}}', '{"name": "clock", "arguments": {}}'
CALLS = (ToolCall("weather", {"city": "Oslo"}), ToolCall("clock", {}))


def chat(schema: dict[str, Any], **more: Any) -> GenerationRequest:
    answer_format = {"type": "json_schema", "json_schema": {"name": "o", "schema": schema}}
    body = {"model": "m", "messages": HELLO, "tools": TOOLS, "response_format": answer_format}
    return validated(body | more, ChatBody).to_requests("m", 1)[0]


def ollama(schema: dict[str, Any]) -> GenerationRequest:
    body = {"model": "m", "messages": HELLO, "tools": TOOLS, "format": schema}
    return validated(body, OllamaChatBody).to_request("m", 1)


def messages(schema: dict[str, Any]) -> GenerationRequest:
    tools = [{"name": each["name"], "input_schema": each.get("parameters", {})} for each in FUNCTIONS]
    config = {"format": {"type": "json_schema", "schema": schema}}
    body = {"model": "m", "max_tokens": 9, "messages": HELLO, "tools": tools, "output_config": config}
    return validated(body, MessagesBody).to_request("m", 1)


def responses(schema: dict[str, Any]) -> GenerationRequest:
    tools = [{"type": "function", **function} for function in FUNCTIONS]
    answer_format = {"type": "json_schema", "name": "o", "schema": schema}
    body = {"model": "m", "input": "x", "tools": tools, "text": {"format": answer_format}}
    return translate(validated(body, CreateBody), "m", 1).request


def sent(request: GenerationRequest) -> Generate:
    operation = request.operation()
    assert isinstance(operation, Generate)
    return operation


def is_allowed(operation: Generate, text: str) -> bool:
    """Return whether the operation's grammar allows `text` as a whole answer."""
    assert operation.json_schema is not None
    matcher = Grammars.for_checks()._matcher(operation.json_schema)
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


def preparation(markers: OutputMarkers) -> PromptPreparation:
    """Return the preparation of the requests of a model with these `markers`."""
    prompts = SimpleNamespace(tokens=None, count=None, context_tokens=100)

    def decode(tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    model = SimpleNamespace(prompts=prompts, markers=markers, decode=decode, end_tokens=frozenset())
    return PromptPreparation(cast(Any, model), finds_shared_prefix=False)


def read(operation: Generate, text: str) -> OutputPiece:
    parser, _ = preparation(OutputMarkers())._parser(operation, [])
    return parser.push(text) + parser.flush()


@pytest.mark.parametrize("dialect", [chat, ollama, messages, responses])
def test_request_with_tools_and_an_answer_schema_lets_the_model_choose_between_them(dialect):
    """The grammar allowed only the answer, so the model invented what the offered tools would return."""
    operation = sent(dialect(SCHEMA))
    assert operation.tool_choice == "auto"
    for text, piece in (
        (ANSWER, OutputPiece(ANSWER)),
        (OSLO, OutputPiece(tool_calls=CALLS[:1])),
        (f"[{OSLO}, {TIME}]", OutputPiece(tool_calls=CALLS)),
    ):
        assert is_allowed(operation, text) and read(operation, text) == piece
    for text in ('{"answer": 5}', '{"name": "nix", "arguments": {}}', '{"name": "clock"}', "[]", "Rain."):
        assert not is_allowed(operation, text)


def test_request_with_tools_and_any_json_object_as_its_answer_may_call_a_tool():
    operation = sent(chat(dict(ANY_OBJECT)))
    assert is_allowed(operation, '{"x": [1]}') and is_allowed(operation, f"[{OSLO}, {TIME}]")
    assert read(operation, OSLO).tool_calls == CALLS[:1]


def test_request_with_an_answer_schema_and_no_tool_that_may_be_called_has_only_the_answers_grammar():
    nothing = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    for choice in ("none", nothing):
        operation = sent(chat(SCHEMA, tool_choice=choice))
        assert (operation.tool_choice, operation.json_schema) == ("none", SCHEMA)
        assert read(operation, OSLO) == OutputPiece(OSLO)


def test_request_with_an_answer_schema_and_allowed_tools_may_call_only_these():
    listed = [{"type": "function", "function": {"name": "clock"}}]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": listed}}
    operation = sent(chat(SCHEMA, tool_choice=allowed))
    assert is_allowed(operation, TIME) and is_allowed(operation, ANSWER) and not is_allowed(operation, OSLO)


def test_request_with_an_answer_schema_and_a_required_tool_must_call_it():
    operation = sent(chat(SCHEMA, tools=TOOLS[:2], tool_choice="required"))
    assert operation.tool_choice == "required"
    assert is_allowed(operation, OSLO) and not is_allowed(operation, ANSWER)


def test_request_with_tools_and_a_deeply_nested_answer_schema_is_refused():
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"properties": {"a": deep}}
    with pytest.raises(BadRequest, match="^the JSON schema of the answer: JSON nested deeper"):
        sendable(chat(deep))


def test_wrong_number_in_an_answer_schema_beside_tools_is_refused_at_the_path_that_the_client_sent():
    with pytest.raises(BadRequest, match="^the JSON schema of the answer, maximum: a number"):
        sendable(chat({"type": "number", "maximum": float("inf")}))


def test_name_that_the_answer_schema_uses_for_a_definition_of_its_own_is_kept_apart():
    own = {"$ref": "#/$defs/call", "$defs": {"call": {"type": "array", "items": {"type": "integer"}}}}
    operation = sent(chat(own))
    assert is_allowed(operation, "[1, 2]") and is_allowed(operation, TIME)
    assert json.loads(json.dumps(operation.json_schema)) == operation.json_schema


LEAST = 0x110000
START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN = range(LEAST, LEAST + 7)
ANALYSIS = tuple(map(ord, "analysis"))
HARMONY = HarmonyTokens(START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN, ANALYSIS)
REFERENCES = {"anyOf": [{"$ref": "#/$defs/answer"}, {"$ref": "other#/x"}], "$defs": {"answer": {"$ref": "#"}}}


@pytest.mark.parametrize("schema", [SCHEMA, {}, REFERENCES, dict(ANY_OBJECT)], ids=json.dumps)
def test_engine_extracts_the_clients_schema_from_the_combined_schema_of_answer_and_tool_calls(schema):
    operation = sent(chat(schema))
    assert operation.json_schema is not None
    assert answer_schema(operation.json_schema) == schema
    assert answer_schema(schema) is None


def test_answer_with_a_schema_whose_name_is_that_of_a_tool_is_sent_as_it_is():
    """The answer became a call without arguments, and its other fields were lost."""
    fields = {"name": {"type": "string"}, "reason": {"type": "string"}}
    operation = sent(chat({"type": "object", "properties": fields, "required": list(fields)}))
    answer = '{"name": "weather", "reason": "x"}'
    assert is_allowed(operation, answer) and read(operation, answer) == OutputPiece(answer)


def test_grammar_for_harmony_has_only_the_answer_because_calls_are_messages_of_their_own():
    """gpt-oss could write a call into its final message, which was then sent as text."""
    harmony = OutputMarkers(harmony=HARMONY)
    chosen, required = sent(chat(SCHEMA)), sent(chat(SCHEMA, tools=TOOLS[:2], tool_choice="required"))
    assert grammar_schema(chosen, harmony) == SCHEMA
    assert grammar_schema(chosen, OutputMarkers()) == chosen.json_schema
    assert grammar_schema(required, harmony) == required.json_schema
    assert grammar_schema(sent(chat(SCHEMA, tool_choice="none")), harmony) == SCHEMA
    used: list[Any] = []
    fake = SimpleNamespace(make_processor=lambda schema, emitted, gate: used.append(schema))
    text_preparation = object.__new__(TextPreparation)
    text_preparation._lm = cast(Any, SimpleNamespace(markers=harmony, grammars=fake))
    job = text_preparation._grammar_job(chosen, None)
    assert job is not None and job() is None and used == [SCHEMA]


def test_harmony_preamble_before_an_answer_with_a_schema_is_free_and_not_part_of_the_answer():
    """The preamble had to match the schema, and a call in the form of the grammar was sent as text there."""
    operation = sent(chat(SCHEMA))
    parser, gate = preparation(OutputMarkers(harmony=HARMONY))._parser(operation, [HARMONY.start])
    assert gate is not None
    piece, opened = OutputPiece(), []
    for channel, text in (("commentary", "I ask."), ("final", ANSWER)):
        for token in (HARMONY.channel, *map(ord, channel), HARMONY.message):
            opened.append(gate.opens_after(token))
            piece += parser.push(chr(token)) if token < LEAST else parser.push_control(token)
        piece += parser.push(text) + parser.push_control(HARMONY.end)
        assert opened[-1] is (channel == "final")
    assert piece + parser.flush() == OutputPiece(ANSWER, "I ask.")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (ENDLESS, "within itself without end"),
        ({"enum": ["a"], "const": "b"}, "cannot be used as a grammar"),
        ({"type": "string", "pattern": "(a"}, "cannot be used as a grammar"),
        ({"$ref": "#/$defs/none"}, "/$defs/none"),
        ({"anyOf": [{"$ref": "#/$defs/none"}]}, "anyOf.0.$ref #/$defs/none"),
    ],
    ids=json.dumps,
)
def test_answer_schema_that_is_refused_alone_is_refused_with_the_same_words_beside_tools(schema, message):
    """With tools, an endless schema was accepted, and errors named paths that the client had not sent."""
    with pytest.raises(RequestError, match=re.escape(message)) as alone:
        Grammars.for_checks().check(schema)
    operation = sent(chat(schema))
    assert operation.json_schema is not None
    with pytest.raises(RequestError) as beside_tools:
        Grammars.for_checks().check(operation.json_schema)
    assert str(beside_tools.value) == str(alone.value)


ANCHORED = {"properties": {"a": {"$ref": "#x"}}, "$defs": {"q": {"$anchor": "x", "type": "boolean"}}}
RESOURCES = {
    "$id": "https://example.org/root",
    "properties": {"a": {"$ref": "q"}},
    "$defs": {"q": {"$id": "q", "$ref": "#/$defs/z", "$defs": {"z": {"type": "boolean"}}}},
}
CONSTANT = {
    "properties": {
        "a": {"type": "boolean"},
        "const": {"const": {"$ref": "#/b"}},
        "enum": {"$ref": "#/$defs/e"},
    },
    "$defs": {"e": {"type": "null"}},
}


@pytest.mark.parametrize("schema", [ANCHORED, RESOURCES, CONSTANT], ids=["anchor", "ids", "constant"])
def test_answer_or_a_forced_call_with_any_kind_of_reference_is_held_to_what_it_means(schema):
    """An anchor of a forced tool was a 400 ("Pointer '/$defs/arguments0x' does not exist")."""
    object_schema = {"type": "object", "required": ["a"], **schema}
    beside_tools = sent(chat(object_schema))
    assert beside_tools.json_schema is not None
    assert answer_schema(beside_tools.json_schema) == object_schema
    function = {"name": "f", "parameters": object_schema}
    other = {"properties": {"a": {"$ref": "#x"}}, "$defs": {"q": {"$anchor": "x", "type": "integer"}}}
    functions = [function, {"name": "g", "parameters": {"type": "object", "required": ["a"], **other}}]
    tools = [{"type": "function", "function": each} for each in functions]
    forced = sent(chat(SCHEMA, tools=tools, tool_choice="required"))
    for value, is_right in (("true", True), ("5", False)):
        assert is_allowed(beside_tools, f'{{"a":{value}}}') is is_right
        assert is_allowed(forced, f'{{"name":"f","arguments":{{"a":{value}}}}}') is is_right
        assert is_allowed(forced, f'{{"name":"g","arguments":{{"a":{value}}}}}') is not is_right
    if schema is CONSTANT:
        assert is_allowed(beside_tools, '{"a":true,"const":{"$ref":"#/b"},"enum":null}')


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        {"$ref": "#/$defs/p", "$defs": {"p": {"properties": {"a": {"type": "boolean"}}}}},
        {"type": "OBJECT", "properties": {"a": {"type": "BOOLEAN"}}},
        {"type": "any"},
        {"type": None, "anyOf": [{"properties": {"a": {"type": "boolean"}}}]},
        {"$ref": "https://example.org/remote"},
        {"description": "anything"},
    ],
    ids=json.dumps,
)
def test_arguments_of_a_forced_call_are_an_object_even_if_the_functions_schema_has_no_type(parameters):
    """A model wrote `"arguments": false`, and the call was sent as a text."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    forced = sent(chat(SCHEMA, tools=tools, tool_choice="required"))
    assert is_allowed(forced, '{"name":"f","arguments":{"a":true}}')
    for value in ("false", '"a"', "[]", "null"):
        assert not is_allowed(forced, f'{{"name":"f","arguments":{value}}}')


def test_answer_schema_of_the_greatest_length_is_accepted_beside_tools():
    """The names of the tools and longer references counted as characters of the client's schema."""
    references = {f"f{number}": {"$ref": "#/$defs/t"} for number in range(1800)}
    schema = {"type": "object", "properties": references, "$defs": {"t": {"type": "boolean"}}}
    schema["$comment"] = "x" * (MAX_SCHEMA_CHARS - len(json.dumps(schema | {"$comment": ""})))
    operation = sent(chat(schema))
    assert operation.json_schema is not None
    Grammars.for_checks().check(operation.json_schema)


def test_schema_parts_that_the_grammar_leaves_out_are_logged_once_under_the_clients_paths(monkeypatch):
    logged: list[Any] = []
    monkeypatch.setattr(grammars, "log_event", lambda name, **fields: logged.append(fields["parts"]))
    schema = {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True}
    assert is_allowed(sent(chat(schema)), "[true]")
    assert logged == [["uniqueItems"]]
