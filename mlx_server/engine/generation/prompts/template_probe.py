"""Find out what a chat template needs by rendering small conversations (probes). Pure: `render` is an
argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mlx_server.engine.generation.prompts.conversation import (
    HARMONY_HEADER_END,
    Message,
    TemplateNeeds,
    fit_messages,
    fit_tools,
)
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateLimitExceeded,
    TemplateProcessDied,
)

Render = Callable[[list[Message], list[dict[str, Any]] | None], str]
"""Renders messages and tools to text that ends where an answer starts or, if the last message is the
beginning of an answer, where it continues. If the template refuses them, it may raise any exception."""

SYSTEM, ASKED, ANSWERED, MORE, RESULT, OTHER = "Qsys", "Qask", "Qans", "Qmore", "Qres", "Qoth"
"""Texts of the messages in probes. They are searched for in the rendered text."""


class TemplateProbe:
    """Finds out what one chat template requires of a conversation, by rendering small conversations with
    `render` and looking for their texts in the results. `call_markers` are the texts that the model writes
    before and after its tool calls.
    """

    def __init__(self, render: Render, call_markers: tuple[str, str] = ("", "")) -> None:
        self._render, self._call_markers = render, call_markers

    def needs(self, uses_tools: bool) -> TemplateNeeds:
        """Return what the template needs. `uses_tools` is True if the template seems to have a place for
        tools.

        If the template exceeds its limits or its process dies, or if it cannot render even a single user
        message, return the default needs.
        """
        needs = TemplateNeeds(plain_tools=not uses_tools)
        try:
            plain = needs
            shapes = (plain, replace(plain, tools_as_list=True), replace(plain, text_parts=True))
            for needs in shapes:
                if self._shows([_user(ASKED)], needs, ASKED):
                    break
            else:
                return plain
            needs = self._with_needs_of_turns(needs)
            return self._with_needs_of_tools(needs) if uses_tools else needs
        except (TemplateLimitExceeded, TemplateProcessDied):
            return TemplateNeeds(plain_tools=not uses_tools)

    def _with_needs_of_turns(self, needs: TemplateNeeds) -> TemplateNeeds:
        turns = [_user(ASKED), _assistant(ANSWERED)]
        in_a_row = [_user(ASKED), _user(MORE), _assistant(ANSWERED), _assistant(OTHER), _user(RESULT)]
        if not self._shows(in_a_row, needs, ASKED, MORE, ANSWERED, OTHER, RESULT) or not self._shows(
            [_assistant(ANSWERED), _user(ASKED)], needs, ANSWERED, ASKED
        ):
            needs = replace(needs, alternation=True)
        if not self._shows([_user(ASKED), _assistant(""), _user(MORE)], needs, ASKED, MORE):
            needs = replace(needs, no_empty_answers=True)
        if not self._shows(turns, needs, ASKED, ANSWERED):
            needs = replace(needs, no_final_answer=True)
        raw = _assistant(f"<|channel|>final{HARMONY_HEADER_END}{ANSWERED}")
        if not self._shows([_user(ASKED), raw, _user(MORE)], needs, ASKED, ANSWERED, MORE):
            needs = replace(needs, no_headers=True)
        in_the_middle = [*turns, _system(SYSTEM), _user(MORE)]
        at_the_end = [*turns, _user(MORE), _system(SYSTEM)]
        # Mistral Nemo's template moves a system message into the last user message, which changes with each
        # turn.
        at_the_start = [_system(SYSTEM), *turns, _user(MORE)]
        if not self._shows(at_the_start, needs, SYSTEM, ASKED, ANSWERED, MORE):
            needs = replace(needs, system="nowhere")
        elif not self._shows(in_the_middle, needs, ASKED, ANSWERED, SYSTEM, MORE) or not self._shows(
            at_the_end, needs, ANSWERED, MORE, SYSTEM
        ):
            needs = replace(needs, system="first")
        if not self._shows([_system(SYSTEM)], needs, SYSTEM):
            needs = replace(needs, user=True)
        return needs

    def _with_needs_of_tools(self, needs: TemplateNeeds) -> TemplateNeeds:
        """Return `needs`, extended by what the template needs for tools, tool calls and their results.

        A conversation with a tool call is rendered in one form after another, for example with the call's
        arguments as an object, then as JSON text. The template needs the first form for which the rendered
        text contains the user's messages, the call's arguments and its result. If there is no such form, or
        if the template does not render the tools, `plain_tools` is set: tools must be written as text.
        """
        bare = [{"type": "function", "function": {"name": "qtool"}}]
        if not self._shows([_user(ASKED)], needs, "qtool", tools=bare):
            needs = replace(needs, whole_tools=True)
        if not self._shows([_user(ASKED)], needs, "qtool", tools=_TOOLS):
            return replace(needs, plain_tools=True, whole_tools=False)
        shapes = [
            replace(
                needs,
                argument_texts=texts,
                short_call_ids=short,
                answer_after_tools=answer,
                call_markers=markers,
            )
            for markers in (None, self._call_markers)
            for answer in (False, True)
            for texts in (False, True)
            for short in (False, True)
        ]
        for shaped in shapes:
            if self._shows(_tool_turns(), shaped, ASKED, _ARGUMENTS[0], RESULT, MORE, tools=_TOOLS):
                break
        else:
            return replace(needs, plain_tools=True, whole_tools=False)
        if shaped.call_markers:
            return shaped
        if not self._shows(_tool_turns(calls=2), shaped, *_ARGUMENTS, MORE, tools=_TOOLS):
            shaped = replace(shaped, single_calls=True)
        stray = [_user(ASKED), _assistant(ANSWERED), {"role": "tool", "content": RESULT}, _user(MORE)]
        if not self._shows(stray, shaped, ASKED, ANSWERED, RESULT, MORE, tools=_TOOLS):
            shaped = replace(shaped, no_stray_results=True)
        if not self._shows(_tool_turns(thinking=OTHER), shaped, "qtool", MORE, tools=_TOOLS):
            shaped = replace(shaped, one_text=True)
        return shaped

    def _shows(
        self,
        messages: Sequence[Message],
        needs: TemplateNeeds,
        *texts: str,
        tools: Sequence[dict[str, Any]] = (),
    ) -> bool:
        """Return whether the template renders `messages`, in the form that `needs` describes, to a text that
        contains `texts` in order.
        """
        try:
            rendered = self._render(fit_messages(messages, needs), fit_tools(tools, needs))
        except (TemplateLimitExceeded, TemplateProcessDied):
            raise
        except Exception:  # a template is a program: it may raise anything
            return False
        end = 0
        for text in texts:
            end = rendered.find(text, end)
            if end < 0:
                return False
        return True


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _system(text: str) -> Message:
    return {"role": "system", "content": text}


_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "A tool",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
    }
    for name in ("qtool", "qother")
]

_ARGUMENTS = ("Qarg", "Qbrg")


def _tool_turns(calls: int = 1, thinking: str = "") -> list[Message]:
    """Return a conversation with `calls` tool calls (1 or 2) and their results, in which the assistant has
    the thinking `thinking`. The calls have no ids, as Ollama's clients send them.
    """
    names = ("qtool", "qother")[:calls]
    functions = [
        {"name": name, "arguments": {"a": value}} for name, value in zip(names, _ARGUMENTS, strict=False)
    ]
    asked = _assistant(ANSWERED if thinking else "") | {
        "tool_calls": [{"type": "function", "function": function} for function in functions]
    }
    if thinking:
        asked["reasoning_content"] = thinking
    results = [{"role": "tool", "content": RESULT, "name": name} for name in names]
    return [_user(ASKED), asked, *results, _user(MORE)]
