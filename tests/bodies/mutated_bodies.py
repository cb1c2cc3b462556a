"""Bodies as real clients send them (tools, past calls, schemas, parts, template variables), and odd versions.

`mutants(path)` draws the text of a body for the route `path`: one that is served, changed in up to three
places at any depth. A piece of JSON text takes the place of a value, so that a body may also be what no JSON
writer makes: NaN, numbers without end, keys that come twice.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

MARK = "\N{SNOWMAN}"
CHAT, EMBED, RERANK = "chat", "vectors", "ranker"

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "A city, or its code", "maxLength": 40},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F", None]},
        "where": {"$ref": "#/$defs/place"},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}}},
}
ANSWER_SCHEMA = {
    "type": "object",
    "properties": {
        "ok": {"type": "boolean"},
        "list": {"type": "array", "items": {"const": 1}, "maxItems": 2},
    },
    "required": ["ok"],
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": WEATHER_SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
CALL_AS_OBJECT = {"function": {"index": 0, "name": "weather", "arguments": {"city": "Oslo", "days": 2}}}
CACHED = {"cache_control": {"type": "ephemeral"}}

BODIES: dict[str, list[dict[str, Any]]] = {
    "/api/chat": [
        {
            "model": CHAT,
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": "The weather?"},
                {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL_AS_OBJECT]},
                {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "call_1"},
            ],
            "tools": [TOOL],
            "stream": False,
            "think": False,
            "keep_alive": "5m",
            "options": {"num_predict": 2, "seed": 1, "temperature": 0.5, "stop": ["x"], "num_ctx": 600},
        },
        {
            "model": CHAT,
            "messages": [{"role": "user", "content": "JSON, please", "images": None}],
            "format": ANSWER_SCHEMA,
            "stream": True,
            "logprobs": True,
            "top_logprobs": 3,
            "options": {"num_predict": 3, "top_k": 5, "top_p": 0.5, "repeat_last_n": 3},
        },
    ],
    "/api/generate": [
        {
            "model": CHAT,
            "prompt": "hello",
            "system": "Be short.",
            "format": "json",
            "stream": False,
            "raw": False,
            "keep_alive": 300,
            "options": {"num_predict": 2, "min_p": 0.1, "repeat_penalty": 1.1},
        }
    ],
    "/api/embed": [
        {"model": EMBED, "input": ["a", "b"], "truncate": True, "dimensions": 2, "keep_alive": 60}
    ],
    "/api/embeddings": [{"model": EMBED, "prompt": "hello", "options": {"num_ctx": 8}, "keep_alive": "1m"}],
    "/v1/chat/completions": [
        {
            "model": CHAT,
            "messages": [
                {"role": "developer", "content": "Be short.", "name": "dev"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "The "}, {"type": "text", "text": "weather?"}],
                },
                {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            ],
            "tools": [TOOL],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "max_completion_tokens": 2,
            "chat_template_kwargs": {"enable_thinking": False, "more": {"x": [1, "a"]}},
            "reasoning_effort": "low",
            "stream": True,
            "stream_options": {"include_usage": True},
            "metadata": {"a": "b"},
            "user": "u",
        },
        {
            "model": CHAT,
            "messages": [{"role": "user", "content": "JSON, please"}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "strict": True, "schema": ANSWER_SCHEMA},
            },
            "logprobs": True,
            "top_logprobs": 3,
            "n": 2,
            "seed": 3,
            "max_tokens": 3,
            "stop": ["x"],
            "logit_bias": {"5": 1},
        },
        {
            "model": CHAT,
            "messages": [{"role": "user", "content": "Call it"}],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "max_tokens": 2,
            "temperature": 0,
        },
        {
            "model": CHAT,
            "messages": [
                {"role": "USER", "content": [{"type": "input_text", "text": "hi"}, {"type": "image_url"}]},
                {"role": "thinking", "content": "hm"},
                {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "reasoning": "hm"},
                {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
                {"role": "function", "name": "f", "content": "5"},
                {"role": "system", "content": "Be short."},
                {
                    "role": "user",
                    "content": [{"type": "file", "file": {"file_data": "aGk=", "filename": "x"}}],
                },
            ],
            "tools": [
                TOOL,
                {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}},
                {"type": "web_search"},
            ],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            "parallel_tool_calls": False,
            "reasoning": {"effort": "none"},
            "response_format": {"type": "text"},
            "logit_bias": {"5": -100},
            "max_tokens": 2,
        },
        {
            "model": CHAT,
            "messages": [{"role": "user", "content": "Call it"}],
            "functions": [{"name": "f", "parameters": {"type": "object"}}],
            "function_call": "auto",
            "max_tokens": 2,
        },
    ],
    "/v1/responses": [
        {
            "model": CHAT,
            "input": [{"role": "USER", "content": "Patch it"}],
            "tools": [
                {"type": "custom", "name": "patch", "format": {"type": "grammar", "definition": "x: y"}},
                {"type": "web_search"},
            ],
            "tool_choice": {"type": "custom", "name": "patch"},
            "max_output_tokens": 2,
        },
        {
            "model": CHAT,
            "instructions": "Be short.",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Hi."}]},
                {"role": "user", "content": "The weather?"},
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "hm"}],
                    "content": None,
                    "encrypted_content": "x",
                },
                {
                    "type": "message",
                    "role": "assistant",
                    "phase": "commentary",
                    "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
                },
                {
                    "type": "function_call",
                    "call_id": "c1",
                    "name": "weather",
                    "arguments": '{"city": "Oslo"}',
                },
                {"type": "function_call_output", "call_id": "c1", "output": "rain"},
                {"type": "web_search_call", "id": "ws_1", "status": "completed"},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
                        {"type": "input_file", "filename": "a.txt", "file_data": "aGVsbG8="},
                    ],
                },
            ],
            "tools": [
                {"type": "function", "name": "weather", "strict": False, "parameters": WEATHER_SCHEMA},
                {"type": "namespace", "name": "n", "tools": []},
                {"type": "web_search", "external_web_access": False},
            ],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "max_output_tokens": 2,
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "metadata": {"a": "b"},
            "prompt_cache_key": "k",
            "truncation": "auto",
            "store": False,
            "stream": True,
        },
        {
            "model": CHAT,
            "input": "JSON, please",
            "text": {
                "format": {"type": "json_schema", "name": "x", "strict": True, "schema": ANSWER_SCHEMA},
                "verbosity": "low",
            },
            "top_logprobs": 2,
            "include": ["message.output_text.logprobs"],
            "temperature": 0.5,
            "top_p": 0.5,
            "seed": 3,
            "max_output_tokens": 3,
        },
        {
            "model": CHAT,
            "input": [{"type": "message", "role": "user", "content": "Call it"}],
            "tools": [{"type": "function", "name": "weather", "parameters": WEATHER_SCHEMA}],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "weather"}],
            },
            "max_output_tokens": 2,
            "temperature": 0,
        },
    ],
    "/v1/responses/compact": [
        {
            "model": CHAT,
            "instructions": "Keep names.",
            "prompt_cache_key": "k",
            "input": [
                {"role": "user", "content": "We meet on Tuesday."},
                {"role": "assistant", "content": "Understood."},
            ],
        }
    ],
    "/v1/completions": [
        {
            "model": CHAT,
            "prompt": ["hello", "there"],
            "max_tokens": 2,
            "echo": False,
            "logprobs": 2,
            "n": 2,
            "stop": "x",
            "seed": 1,
            "presence_penalty": 0.5,
        },
        {"model": CHAT, "prompt": [[1, 2, 3]], "max_tokens": 2, "stream": True},
    ],
    "/v1/rerank": [
        {
            "model": RERANK,
            "query": "a",
            "documents": ["a", {"text": "b"}],
            "top_n": 1,
            "return_documents": True,
        },
        {"model": RERANK, "query": "a", "texts": ["a", "b"], "raw_scores": True, "max_tokens_per_doc": 9},
    ],
    "/v1/embeddings": [
        {"model": EMBED, "input": ["a", "b"], "encoding_format": "float", "dimensions": 2, "user": "u"},
        {"model": EMBED, "input": "a", "encoding_format": "base64"},
    ],
    "/v1/messages": [
        {
            "model": CHAT,
            "max_tokens": 2,
            "system": [{"type": "text", "text": "Be short.", **CACHED}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "The weather?", **CACHED}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "hm", "signature": "s"},
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t1",
                            "content": [{"type": "text", "text": "rain"}],
                            "is_error": False,
                        },
                        {"type": "text", "text": "and?"},
                    ],
                },
            ],
            "tools": [{"name": "weather", "description": "x", "input_schema": WEATHER_SCHEMA}],
            "tool_choice": {"type": "auto"},
            "thinking": {"type": "disabled"},
            "metadata": {"user_id": "u"},
            "stop_sequences": ["x"],
            "stream": True,
        },
        {
            "model": CHAT,
            "max_tokens": 2,
            "messages": [{"role": "user", "content": "Call it"}],
            "tools": [{"name": "weather", "input_schema": WEATHER_SCHEMA}],
            "tool_choice": {"type": "tool", "name": "weather"},
            "top_k": 3,
        },
    ],
    "/v1/messages/count_tokens": [
        {
            "model": CHAT,
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cc=1;"},
                {"type": "text", "text": "s"},
            ],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "document", "title": "t", "source": {"type": "text", "data": "x"}},
                        {"type": "search_result", "source": "u", "content": [{"type": "text", "text": "y"}]},
                    ],
                },
                {"role": "system", "content": "Agents: none"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                        {"type": "web_search_tool_result", "tool_use_id": "s", "content": {"type": "error"}},
                        {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "ls"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "a",
                            "is_error": True,
                            "content": [{"type": "image", "source": {"type": "base64", "data": "AA=="}}],
                        }
                    ],
                },
            ],
            "tools": [
                {"type": "bash_20250124", "name": "bash"},
                {"type": "web_search_20260318", "name": "web_search"},
            ],
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": ANSWER_SCHEMA}},
            "context_management": {"edits": []},
        },
        {
            "model": CHAT,
            "system": "Be short.",
            "messages": [{"role": "user", "content": "The weather?"}],
            "tools": [{"name": "weather", "input_schema": WEATHER_SCHEMA}],
            "tool_choice": {"type": "any"},
        },
    ],
    "/tokenize": [
        {"model": CHAT, "content": "The weather?", "add_special": True, "with_pieces": True},
        {"model": CHAT, "prompt": "The weather?", "add_special_tokens": False, "parse_special": True},
    ],
    "/detokenize": [{"model": CHAT, "tokens": [5, 6, 7]}],
    "/apply-template": [
        {
            "model": CHAT,
            "messages": [{"role": "user", "content": "The weather?"}],
            "tools": [TOOL],
            "tool_choice": "auto",
            "reasoning_effort": "low",
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ],
    "/api/show": [{"model": CHAT}],
}


def nested(opening: str, levels: int, inside: str, closing: str) -> str:
    return opening * levels + inside + closing * levels


NUMBERS = ["1e999", "-1e999", "1e-999", "1e308", "0.1e1", "-0.0", "-1", "0", "1.5", "18446744073709551616"]
NUMBERS += ["9" * 400, "1e12", "1000000000000", "2147483648"]
TEXTS = ['"\\u0000"', '"\U0001f9ca\u202e\ufeff\u2028\u0085"', '""', '"-1"', '"' + "a" * 100_000 + '"']
TEXTS += ['"1e999s"', '"99999999999999999999h"', '"{{ messages }}{% for"']
"""The last ones are durations without end, and a template."""
SHAPES = [
    "null",
    "true",
    "[]",
    "{}",
    "[[]]",
    '[""]',
    "[null]",
    '[{"": ""}]',
    '{"type": "object"}',
    "[{}, {}]",
]
SHAPES += ["[" + "0," * 20_000 + "0]", "[" + '"",' * 2_000 + '""]', "[" + "{}," * 3_000 + "{}]"]
SHAPES += ['{"a": 1, "a": [2]}', '{"' + "k" * 50_000 + '": 1}']
SCHEMAS = ['{"$ref": "#"}', '{"$ref": "#/$defs/nowhere"}', '{"not": {}}', '{"enum": []}', '{"anyOf": []}']
SCHEMAS += ['{"type": "string", "pattern": "("}', '{"type": "array", "minItems": 3, "maxItems": 1}', "false"]
DEEP = [nested("[", levels, "", "]") for levels in (100, 498, 500, 955)]
DEEP += [nested('{"a":', levels, "1", "}") for levels in (100, 499, 955)]
DEEP += [nested('{"type": "array", "items":', levels, "{}", "}") for levels in (120, 900)]
ARGUMENTS = [
    '{"x": NaN}',
    '{"x": 1e999}',
    '{"x": "\\ud800"}',
    "[1]",
    "null",
    "5",
    "{",
    "",
    '{"x": [-Infinity]}',
]
ARGUMENTS += [nested('{"a":', 955, "1", "}"), '{"x": ' + "9" * 5000 + "}", '"text"']
"""Texts in place of the arguments of a call, which are JSON as text."""
NO_JSON = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-" + "9" * 5000,
    '"\\ud800"',
    '"\\udc00\\ud800"',
    "'x'",
    "undefined",
]
NO_JSON += ["tru", "", "01", "[1,]", "[" * 2000 + "]" * 2000]

VALID = (
    st.sampled_from([*NUMBERS, *TEXTS, *SHAPES, *SCHEMAS, *DEEP, *map(json.dumps, ARGUMENTS)])
    | st.floats(allow_nan=False, allow_infinity=False).map(json.dumps)
    | st.integers().map(str)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(json.dumps)
)
ODD = st.integers(0, 15).flatmap(lambda dice: VALID if dice else st.sampled_from(NO_JSON))
"""Pieces of JSON text as sent. Invalid ones are rare, because they have the whole body refused."""


@st.composite
def mutants(draw: st.DrawFn, path: str, chat: str = CHAT, embed: str = EMBED) -> str:
    """Draw the text of a body for `path` with one to three odd places; `chat` and `embed` name the models."""
    body: Any = json.loads(json.dumps(draw(st.sampled_from(BODIES[path]))))
    body["model"] = {CHAT: chat, EMBED: embed}.get(body["model"], body["model"])
    pieces: dict[str, str] = {}
    for number in range(draw(st.integers(1, 3))):
        spots = list(_spots(body, ()))
        if not spots:
            break
        mark = f"{MARK}{number}{MARK}"
        _change(body, draw(st.sampled_from(spots)), draw(st.sampled_from(HOW)), mark)
        pieces[mark] = draw(ODD)
    text = json.dumps(body, ensure_ascii=False)
    for mark, piece in pieces.items():
        text = text.replace(f'"{mark}"', piece)
    return text


HOW = ("replace", "replace", "replace", "replace", "remove", "add", "double", "repeat")


def _spots(value: Any, path: tuple[str | int, ...]) -> Any:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _spots(inner, (*path, key))


def _change(body: Any, spot: tuple[str | int, ...], how: str, mark: str) -> None:
    """Change one place of `body`: `mark` stands for the odd value there."""
    holder = body
    for step in spot[:-1]:
        holder = holder[step]
    key: Any = spot[-1]
    match how:
        case "remove":
            del holder[key]
        case "add" if isinstance(holder, dict):
            holder[f"{key}x"] = mark
        case "double" if isinstance(holder, dict):
            holder[_Twice(str(key))] = mark
        case "repeat" if isinstance(holder, list):
            holder[:0] = [mark, holder[key]] * 3
        case _:
            holder[key] = mark


class _Twice(str):
    """A key that is equal to none: the body has it twice."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
