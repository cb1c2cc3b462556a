"""Translate chat templates of Ollama's models, which are in Go's language, to Jinja. Pure.

    {{ if .System }}<|system|>{{ .System }}{{ end }}<|user|>{{ .Prompt }}<|assistant|>{{ .Response }}
    {{ range $i, $m := .Messages }}<|{{ $m.Role }}|>{{ .Content }}{{ end }}<|assistant|>

A template that uses `.Messages` renders a whole conversation. Any other renders a single turn: it is rendered
once for each turn, and for the last turn only up to `.Response`, as in Ollama. Texts become Jinja
expressions, because Jinja would trim their white space.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator

from mlx_server.model_store.ollama_store.go_syntax import (
    MAX_CHARS,
    MAX_DEPTH,
    UntranslatableTemplate,
    split_actions,
)

_SHOWN_CHARS = 80

_WORD = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\$?\w*(?:\.\w+)+|\$\w*|\.|[()|,]|:=|=|-?\d+(?:\.\d+)?|\w+)\s*'
)
_ROOT = {
    **{"System": "System", "Prompt": "Prompt", "Response": "Response", "Suffix": "''"},
    **{"Messages": "messages", "Tools": "Tools", "Think": "Think"},
    **{"ThinkLevel": "ThinkLevel", "IsThinkSet": "IsThinkSet"},
}
"""Maps the fields of Go's outermost value to their names in the translation."""
_FIELDS = {"Thinking": "reasoning_content", "ToolName": "name", "ToolCallID": "tool_call_id", "ID": "id"}
"""The fields of a message whose name in Jinja is not simply Go's name in lower case with underscores."""
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

_GO_ACTION = re.compile(r"\{\{-?\s*(?:\.|\$|(?:if|range|with|end|else)\b)")
_FORMAT = re.compile(r'"[^%]*(?:%[svd][^%]*)*"')
"""Matches the formats of `printf` that can be translated."""

_SHOW = (
    "{% macro show(v) %}{% if v is string %}{{ v }}{% elif v is boolean %}{{ 'true' if v else 'false' }}"
    "{% elif v is number %}{{ v }}{% elif v %}{{ v | tojson }}{% endif %}{% endmacro %}"
)
_VALUES = (
    "{% set Tools = tools or [] %}{% set IsThinkSet = enable_thinking is defined %}"
    "{% set Think = IsThinkSet and enable_thinking %}{% set ThinkLevel = reasoning_effort | default('') %}"
)
_CONVERSATION = (
    "{% set Prompt = '' %}{% set Response = '' %}{% set System = messages | selectattr('role', 'equalto', "
    "'system') | map(attribute='content') | join('\\n\\n') %}{% set go = namespace() %}"
)
_ONE_TURN = "{% macro turn(System, Prompt, Response, last) %}{% set go = namespace() %}"
_EACH_TURN = (
    "{% endmacro %}{% set now = namespace(system='', prompt='', response='') %}{% for m in messages %}"
    "{% if (m.role == 'system' and (now.prompt or now.response)) or (m.role == 'user' and now.response) %}"
    "{{ turn(now.system, now.prompt, now.response, false) }}"
    "{% set now.system = '' %}{% set now.prompt = '' %}{% set now.response = '' %}{% endif %}"
    "{% if m.role == 'system' %}{% set now.system = now.system ~ '\\n\\n' ~ m.content if now.system "
    "else m.content %}"
    "{% elif m.role == 'user' %}{% set now.prompt = now.prompt ~ '\\n\\n' ~ m.content if now.prompt "
    "else m.content %}"
    "{% elif m.role == 'assistant' %}{% set now.response = now.response ~ '\\n\\n' ~ m.content "
    "if now.response else m.content %}{% endif %}{% endfor %}"
    "{{ turn(now.system, now.prompt, now.response, true) }}"
)


def is_go_template(template: str) -> bool:
    """Return True if a chat template is written in Go's template language instead of Jinja."""
    return "{%" not in template and _GO_ACTION.search(template) is not None


def to_jinja(template: str) -> str:
    """Translate a chat template of Ollama (Go) to Jinja, and return it. Raises UntranslatableTemplate if the
    template is too long, or uses something that is not translated.
    """
    if len(template) > MAX_CHARS:
        raise _refused(f"it is longer than {MAX_CHARS} characters")
    has_messages = re.search(r"\.Messages\b", template) is not None
    translated = "".join(_Translation(template, one_turn=not has_messages).all())
    if has_messages:
        return _SHOW + _VALUES + _CONVERSATION + translated
    return _SHOW + _VALUES + _ONE_TURN + translated + _EACH_TURN


class _Translation:
    """Translates one template. With `one_turn`, the template renders a single turn of a conversation.

    The argument `dot` of the methods is the Jinja name of what `.` means in Go at the point that the
    translation has reached; "" where it is the outermost value.
    """

    def __init__(self, template: str, *, one_turn: bool) -> None:
        self._parts = split_actions(template)
        self._one_turn = one_turn
        self._answer_began = False
        self._depth = 0

    def all(self) -> Iterator[str]:
        """Yield the translation in pieces. Raises UntranslatableTemplate if something cannot be
        translated.
        """
        end = yield from self._until_end("")
        if end is not None:
            raise _refused(f"{{{{ {end} }}}} stands outside of a block")
        if self._one_turn and not self._answer_began:
            yield "{{ Response }}"

    def _until_end(self, dot: str) -> Generator[str, None, str | None]:
        """Yield the translation up to the action `else` or `end` that ends the current block or a branch of
        it. Return the text of this action, such as `else if .Tools`; None if the template ends first.

        `dot` is the Jinja name of what `.` means in Go in this block.
        """
        for is_action, text in self._parts:
            keyword, _, rest = text.partition(" ")
            if not is_action:
                if text:
                    yield self._written(json.dumps(text, ensure_ascii=False))
            elif not text or text.startswith("/*"):
                continue
            elif keyword in ("else", "end"):
                return text
            elif keyword in ("break", "continue"):
                yield f"{{% {keyword} %}}"
            elif keyword in ("if", "range", "with"):
                yield from self._block(keyword, rest, dot)
            elif assigned := re.fullmatch(r"\$(\w+)\s*:?=\s*(.+)", text, re.DOTALL):
                yield f"{{% set go.v_{assigned[1]} = {_expression(assigned[2], dot)} %}}"
            else:
                yield self._written(f"show({_expression(text, dot)})")
                self._answer_began |= text in (".Response", "$.Response")
        return None

    def _written(self, expression: str) -> str:
        if self._one_turn and self._answer_began:  # the last turn's prompt ends where the answer begins
            return f"{{% if not last %}}{{{{ {expression} }}}}{{% endif %}}"
        return f"{{{{ {expression} }}}}"

    def _block(self, keyword: str, condition: str, dot: str) -> Iterator[str]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refused(f"its blocks are nested deeper than {MAX_DEPTH} levels")
        names, _, over = condition.rpartition(":=")
        inner = f"d{self._depth}"
        if keyword == "range":
            yield f"{{% for {inner} in {_expression(over, dot)} or [] %}}"
            *index, value = [name.strip(" $") for name in names.split(",")] if names else [""]
            for name, bound in ((index[0] if index else "", "loop.index0"), (value, inner)):
                if name:
                    yield f"{{% set go.v_{_variable(name)} = {bound} %}}"
        else:
            yield f"{{% if {_expression(over, dot)} %}}"
            if names.strip():
                yield f"{{% set go.v_{_variable(names.strip(' $'))} = {_expression(over, dot)} %}}"
            if keyword == "with":
                yield f"{{% set {inner} = {_expression(over, dot)} %}}"
        end = yield from self._until_end(dot if keyword == "if" else inner)
        while keyword == "if" and end is not None and end.startswith("else if "):
            yield f"{{% elif {_expression(end.removeprefix('else if '), dot)} %}}"
            end = yield from self._until_end(dot)
        if end == "else":
            yield "{% else %}"
            end = yield from self._until_end(dot)
        if end != "end":
            raise _refused(f"`{keyword}` has no `end`")
        yield "{% endfor %}" if keyword == "range" else "{% endif %}"
        self._depth -= 1


def _variable(name: str) -> str:
    if not re.fullmatch(r"\w+", name):
        raise _refused(f"{_quoted('$' + name)} is no variable")
    return name


def _expression(text: str, dot: str) -> str:
    words, at = [], 0
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None or match.end() == at:
            raise _not_read(text)
        words.append(match[1])
        at = match.end()
    expression, rest = _pipeline(words, dot, text, 0)
    if rest:
        raise _not_read(text)
    return expression


def _pipeline(words: list[str], dot: str, text: str, depth: int) -> tuple[str, list[str]]:
    """Return the Jinja translation of the Go pipeline at the beginning of `words`, and the words after it.
    The pipeline ends before a closing parenthesis or after the last word.

    `dot` is the Jinja name of what `.` means in Go. The pipeline stands in `depth` pairs of parentheses.
    `text` is the whole action, for errors. Raises UntranslatableTemplate if there is no translation.
    """
    if depth > MAX_DEPTH:
        raise _not_read(text)
    piped: str | None = None
    while True:
        arguments: list[str] = []
        function = words[0] if words and re.fullmatch(r"[a-zA-Z]\w*", words[0]) else None
        words = words[1:] if function and function not in ("true", "false", "nil") else words
        if function in ("true", "false", "nil"):
            function = None
        while words and words[0] not in (")", "|"):
            word, words = words[0], words[1:]
            if word == "(":
                inner, words = _pipeline(words, dot, text, depth + 1)
                if not words or words[0] != ")":
                    raise _not_read(text)
                words = words[1:]
                arguments.append(inner)
            else:
                arguments.append(_operand(word, dot, text))
        arguments += [piped] if piped is not None else []
        if function is None and len(arguments) != 1:
            raise _not_read(text)
        piped = _call(function, arguments, text) if function else arguments[0]
        if not words or words[0] == ")":
            return piped, words
        words = words[1:]  # the pipe


def _operand(word: str, dot: str, text: str) -> str:
    if word.startswith("`"):
        return json.dumps(word[1:-1], ensure_ascii=False)
    if word.startswith('"'):
        return word
    if re.fullmatch(r"-?\d+(?:\.\d+)?", word):
        return word
    if word in ("true", "false", "nil"):
        return {"nil": "none"}.get(word, word)
    start, *names = word.split(".")
    names = [name for name in names if name]
    if start == "$" or (start == "" and not dot):
        if not names or names[0] not in _ROOT:
            raise _refused(f"there is no field {_quoted(word)}")
        value, names = _ROOT[names[0]], names[1:]
    elif start == "":
        value = dot
    elif start.startswith("$"):
        value = f"go.v_{start[1:]}"
    else:
        raise _not_read(text)
    return value + "".join(f"[{json.dumps(_field(name))}]" for name in names)


def _field(name: str) -> str:
    return _FIELDS.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _call(function: str, arguments: list[str], text: str) -> str:
    first, *others = arguments or [""]
    if function in ("and", "or") and arguments:
        return f"({f' {function} '.join(arguments)})"
    if function in _COMPARISONS and others:
        operator = _COMPARISONS[function]
        return f"({' or '.join(f'{first} {operator} {other}' for other in others)})"
    if function == "index" and others:
        return first + "".join(f"[{other}]" for other in others)
    if function == "slice" and len(others) in (1, 2):
        return f"{first}[{':'.join([*others, '']) if len(others) == 1 else ':'.join(others)}]"
    if function == "not" and len(arguments) == 1:
        return f"(not {first})"
    if function == "len" and len(arguments) == 1:
        return f"({first} | length)"
    if function == "json" and len(arguments) == 1:
        return f"({first} | tojson)"
    if function == "printf" and _FORMAT.fullmatch(first):
        shown = ", ".join(f"show({other})" for other in others)
        return f"({re.sub('%[vd]', '%s', first)} | format({shown}))"
    if function == "currentDate":
        return "strftime_now('%Y-%m-%d')"
    raise _not_read(text)


def _not_read(action: str) -> UntranslatableTemplate:
    return _refused(f"{_quoted('{{ ' + action + ' }}')} cannot be translated to Jinja")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…")


def _refused(why: str) -> UntranslatableTemplate:
    return UntranslatableTemplate(why)
