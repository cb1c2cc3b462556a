"""Parse tool calls in the formats for which mlx-lm has no parser. Pure.

Each parser takes the text between a format's markers, and the tools that the client offers. It returns the
calls as dicts with `name` and `arguments`, and raises an exception of any kind if it cannot parse the text.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

Call = dict[str, Any]

DEEPSEEK_CALL = ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")
DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"
_FENCE = re.compile(r"^```(?:json)?\s*|\s*```$")
_FUNCTION = re.compile(r"<function=([^>]*)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>]*)>(.*?)</parameter>", re.DOTALL)
_CALL_ID = re.compile(r"\[CALL_ID\][^\[]*")
_DSML_CALL = re.compile(r'<｜DSML｜invoke name="([^"]*)">(.*?)</｜DSML｜invoke>', re.DOTALL)
_DSML_ARGUMENT = re.compile(
    r'<｜DSML｜parameter name="([^"]*)" string="(true|false)">(.*?)</｜DSML｜parameter>', re.DOTALL
)
_JSON_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}


def parse_deepseek(text: str, tools: Any = None) -> list[Call]:
    """Return the tool calls in `text`, as DeepSeek's models write them. Raises ValueError if a call has no
    DEEPSEEK_SEPARATOR.

    V3 and R1 write the call's type, the separator, the tool's name, and JSON within a code fence. V3.1 writes
    the name, the separator and JSON. `tools` has no effect; every parser has this parameter.
    """
    begin, end = DEEPSEEK_CALL
    calls = []
    for part in text.split(begin):
        if not part.strip():
            continue
        before, separator, after = part.partition(end)[0].partition(DEEPSEEK_SEPARATOR)
        if not separator:
            raise ValueError("a call without separator")
        name, arguments = before.strip(), after.strip()
        if not arguments.startswith("{"):
            name, _, arguments = arguments.partition("\n")
        calls.append({"name": name.strip(), "arguments": _FENCE.sub("", arguments.strip()) or "{}"})
    return calls


def parse_dsml(text: str, tools: Any = None) -> list[Call]:
    """Return the tool calls in `text`, as DeepSeek V3.2 writes them: a tag for each call and each argument.
    Raises ValueError if there is other text next to the calls, or if an argument is not valid JSON.

    An argument's tag says whether its value is plain text or JSON, so `tools` has no effect; every parser has
    this parameter.
    """
    calls = []
    for name, body in _DSML_CALL.findall(text):
        arguments = {
            key: value if is_text == "true" else json.loads(value)
            for key, is_text, value in _DSML_ARGUMENT.findall(body)
        }
        calls.append({"name": name, "arguments": arguments})
    if _DSML_CALL.sub("", text).strip():
        raise ValueError("text next to the calls")
    return calls


def parse_function_tags(text: str, tools: Any = None) -> list[Call]:
    """Parse the tool calls of Seed-OSS, which writes a tag for each call and each argument. An argument's
    value is text if the tool's schema says that it is a string, or if it is not valid JSON; otherwise, it is
    JSON.
    """
    calls = []
    for name, body in _FUNCTION.findall(text):
        texts = _text_arguments(name, tools or ())
        arguments = {
            key: _value_of(value.strip("\n"), key in texts) for key, value in _PARAMETER.findall(body)
        }
        calls.append({"name": name, "arguments": arguments})
    if not calls or _FUNCTION.sub("", text).strip():
        raise ValueError("text next to the calls")
    return calls


def _text_arguments(name: str, tools: Any) -> set[str]:
    """Return the names of those arguments of the tool `name` whose schema has the type `string`."""
    for tool in tools:
        function = tool.get("function") or {}
        if function.get("name") == name:
            properties = (function.get("parameters") or {}).get("properties") or {}
            return {key for key, schema in properties.items() if schema.get("type") == "string"}
    return set()


def _value_of(text: str, is_text: bool) -> Any:
    if is_text:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse_json_lines(text: str, tools: Any = None) -> list[Call]:
    """Return the tool calls in `text`, as Apriel and MiniMax M1 write them: a JSON list, or one JSON object
    on each line. Raises ValueError if neither the whole text nor each line is JSON. `tools` has no effect;
    every parser has this parameter.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
    return found if isinstance(found, list) else [found]


def without_call_ids(text: str) -> str:
    """Return `text` without the id in Mistral's `name[CALL_ID]id[ARGS]{…}`, because mlx-lm 0.32 takes the id
    for the tool's name.
    """
    return _CALL_ID.sub("", text)


def parse_cohere(text: str, tools: Any = None) -> list[Call]:
    """Return the tool calls in `text`, as Command R7B and Command A write them: a JSON list of objects with
    `tool_name` and `parameters`. Raises ValueError, KeyError or TypeError if the text is no such list.
    `tools` has no effect; every parser has this parameter.
    """
    return [{"name": call["tool_name"], "arguments": call["parameters"]} for call in json.loads(text)]


def parse_python_calls(text: str, tools: Any = None) -> list[Call]:
    """Return the tool calls in `text`, as OLMo 3 writes them: one Python call with keyword arguments on each
    line. Raises an exception, such as SyntaxError, ValueError or KeyError, if the text contains anything
    else. `tools` has no effect; every parser has this parameter.
    """
    return [_python_call(statement) for statement in ast.parse(text.strip()).body]


def _python_call(statement: ast.stmt) -> Call:
    if not (isinstance(statement, ast.Expr) and isinstance(call := statement.value, ast.Call)) or call.args:
        raise ValueError("no call with keywords")
    arguments = {word.arg: _python_value(word.value) for word in call.keywords}
    return {"name": ast.unparse(call.func), "arguments": arguments}


def _python_value(node: ast.expr) -> Any:
    """Return the value of a Python literal, in which `true`, `false` and `null` may occur as in JSON. Raises
    KeyError for another name, and ValueError for another expression.
    """
    if isinstance(node, ast.Name):
        return _JSON_WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_python_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_python_value(key) if key else None for key in node.keys]
        return dict(zip(keys, map(_python_value, node.values), strict=True))
    return ast.literal_eval(node)
