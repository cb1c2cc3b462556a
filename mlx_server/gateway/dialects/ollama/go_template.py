"""Render Go templates that clients send to /api/generate: the part of the language that prompts need. Pure.

    {{ if .System }}<|system|>{{ .System }}{{ end }}<|user|>{{ .Prompt }}<|assistant|>{{ .Response }}

Supported are fields (`.Prompt`, `$.Prompt`), texts, comments, `if`, `else`, `range` over messages, `eq`,
`ne`, `and`, `or`, `not`, parentheses, and the dashes that trim white space. Any other construct is refused
with an error that names it.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.model_store.ollama_store.go_syntax import (
    MAX_CHARS,
    MAX_DEPTH,
    UntranslatableTemplate,
    split_actions,
)

_WORD = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\$?(?:\.\w+)+|\$|\.|[()]|[^\s()]+)')
_FUNCTIONS = ("eq", "ne", "and", "or", "not")

Value = Any
Expression = Any  # a _Field, a _Call, or a text


@dataclass(frozen=True)
class _Field:
    names: tuple[str, ...]
    of_root: bool = False


@dataclass(frozen=True)
class _Call:
    function: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class _Block:
    """A parsed `if` or `range` block of a template; `keyword` says which of the two.

    An `if` renders `body` if the condition `over` is true. A `range` renders `body` once for each item of the
    list `over`. `otherwise`, the part after `else`, is rendered if the condition is false or the list empty.
    """

    keyword: str
    over: Expression
    body: tuple[Any, ...]
    otherwise: tuple[Any, ...]


class _AnswerBegins(Exception):
    """Ends the rendering at `.Response`, because the prompt ends where the model's answer begins."""


def render_go_template(template: str, values: Mapping[str, Value]) -> str:
    """Return the prompt that the template makes of `values`, up to `.Response`. Raises BadRequest if the
    template is too long, is not valid, or uses an unsupported construct; the message begins with `template:`.
    """
    if len(template) > MAX_CHARS:
        raise _refused(f"it is longer than {MAX_CHARS} characters")
    try:
        nodes = _Parser(template).nodes()
    except UntranslatableTemplate as error:
        raise _refused(str(error)) from error
    rendered = _rendered(nodes, values, values)
    out: list[str] = []
    with contextlib.suppress(_AnswerBegins):
        out.extend(rendered)
    return "".join(out)


class _Parser:
    def __init__(self, template: str) -> None:
        self._parts = split_actions(template)
        self._depth = 0
        self._in_range = False

    def nodes(self) -> tuple[Any, ...]:
        nodes, end = self._until_end()
        if end is not None:
            raise _refused(f"{{{{ {end} }}}} stands outside of a block")
        return nodes

    def _until_end(self) -> tuple[tuple[Any, ...], str | None]:
        """Parse up to the next `else` or `end` action. Return the nodes before the action, and the action's
        text, such as `else if .System`; None instead of the text if the template ends first.
        """
        nodes: list[Any] = []
        for is_action, text in self._parts:
            keyword, _, rest = text.partition(" ")
            if not is_action:
                nodes.append(text)
            elif not text or text.startswith("/*"):
                continue
            elif keyword in ("else", "end"):
                return tuple(nodes), text
            elif keyword in ("if", "range"):
                nodes.append(self._block(keyword, rest))
            else:
                nodes.append((_expression(text),))
        return tuple(nodes), None

    def _block(self, keyword: str, condition: str) -> _Block:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refused(f"its blocks are nested deeper than {MAX_DEPTH} levels")
        if keyword == "range":
            if self._in_range:
                raise _refused("`range` within `range` is not supported")
            self._in_range = True
        over = _expression(condition)
        body, end = self._until_end()
        otherwise: tuple[Any, ...] = ()
        if end is not None and end.startswith("else if "):
            otherwise = (self._block("if", end.removeprefix("else if ")),)
            end = "end"  # the inner `if` has consumed the `end` that closes both
        elif end == "else":
            otherwise, end = self._until_end()
        if end != "end":
            raise _refused(f"`{keyword}` has no `end`")
        self._depth -= 1
        self._in_range = self._in_range and keyword != "range"
        return _Block(keyword, over, body, otherwise)


def _expression(text: str) -> Expression:
    words = _WORD.findall(text)
    expression, rest = _operands(words, 0, text)
    if rest:
        raise _not_read(text)
    return expression


def _operands(words: Sequence[str], depth: int, text: str) -> tuple[Expression, Sequence[str]]:
    """Parse the expression at the start of `words`. The expression ends with the last word, or before the
    first closing parenthesis that the expression did not open. Return the expression, and the remaining
    words, which begin with that parenthesis; they are empty if there is none.

    `depth` is how many parentheses enclose the expression. `text` is the whole template action (the text
    between `{{` and `}}`), for error messages. Raises BadRequest if the expression is not valid or `depth` is
    greater than MAX_DEPTH.
    """
    if depth > MAX_DEPTH or not words:
        raise _not_read(text)
    function = words[0] if words[0] in _FUNCTIONS else None
    rest = words[1:] if function else words
    operands: list[Expression] = []
    while rest and rest[0] != ")":
        word, rest = rest[0], rest[1:]
        if word == "(":
            operand, rest = _operands(rest, depth + 1, text)
            if not rest or rest[0] != ")":
                raise _not_read(text)
            rest = rest[1:]
        else:
            operand = _operand(word, text)
        operands.append(operand)
    if function is None and len(operands) == 1:
        return operands[0], rest
    least = {"not": 1, "eq": 2, "ne": 2}.get(function or "", 1)
    if function is None or len(operands) < least:
        raise _not_read(text)
    return _Call(function, tuple(operands)), rest


def _operand(word: str, text: str) -> Expression:
    if word.startswith("`"):
        return word[1:-1]
    if word.startswith('"'):
        try:
            return str(json.loads(word, strict=False))
        except ValueError:
            raise _not_read(text) from None
    if word.startswith((".", "$.")):
        return _Field(tuple(word.lstrip("$").strip(".").split(".")), word.startswith("$"))
    raise _not_read(text)


def _rendered(nodes: Sequence[Any], dot: Value, root: Mapping[str, Value]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        elif isinstance(node, _Block):
            yield from _rendered_block(node, dot, root)
        elif node[0] == _Field(("Response",)) or node[0] == _Field(("Response",), of_root=True):
            raise _AnswerBegins
        else:
            value = _value(node[0], dot, root)
            yield (
                str(value)
                if isinstance(value, str | int) and not isinstance(value, bool)
                else _go_bool(value)
            )


def _rendered_block(block: _Block, dot: Value, root: Mapping[str, Value]) -> Iterator[str]:
    over = _value(block.over, dot, root)
    if not over:
        yield from _rendered(block.otherwise, dot, root)
    elif block.keyword == "if":
        yield from _rendered(block.body, dot, root)
    elif not isinstance(over, list | tuple):
        raise _refused("`range` goes over `.Messages` only")
    else:
        for each in over:
            yield from _rendered(block.body, each, root)


def _value(expression: Expression, dot: Value, root: Mapping[str, Value]) -> Value:
    match expression:
        case _Field(names, of_root):
            value: Value = root if of_root else dot
            for name in filter(None, names):
                if not isinstance(value, Mapping) or name not in value:
                    raise _refused(f"there is no field {quoted('.' + name)} here")
                value = value[name]
            return value
        case _Call("not", (first, *_)):
            return not _value(first, dot, root)
        case _Call("and" | "or" as function, arguments):
            for argument in arguments:
                value = _value(argument, dot, root)
                if bool(value) is (function == "or"):
                    break
            return value
        case _Call("eq", (first, *others)):
            return any(_value(first, dot, root) == _value(other, dot, root) for other in others)
        case _Call("ne", (first, second, *_)):
            return _value(first, dot, root) != _value(second, dot, root)
    return expression


def _go_bool(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    raise _refused("a list cannot be written into the prompt")


def _not_read(action: str) -> BadRequest:
    known = "fields, if, else, range, eq, ne, and, or, not"
    return _refused(f"{quoted('{{ ' + action + ' }}')} is not read here, only {known}")


def _refused(why: str) -> BadRequest:
    remedy = "send the whole prompt with `raw`, or use /api/chat"
    return BadRequest("not_supported", f"template: {why}; {remedy}", field="template")
