"""Turn a chat into token ids with a model's chat template, after changing the chat so that the template
accepts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.generation.prompts.chat_template import RESERVED_VARIABLES, ChatTemplate
from mlx_server.engine.generation.prompts.conversation import (
    STRICTEST,
    TemplateNeeds,
    fit_messages,
    fit_tools,
    split_final_answer,
)
from mlx_server.engine.generation.prompts.length_check import CHUNK_CHARS, check_length, texts_of
from mlx_server.engine.generation.prompts.messages import check_tools, normalize_messages
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateLimitExceeded,
    TemplateProcessDied,
)
from mlx_server.engine.generation.prompts.text_tokens import TextTokens
from mlx_server.engine.generation.prompts.tool_prompt import describe_tools
from mlx_server.engine.vision.pictures import image_order
from mlx_server.protocol import Generate

if TYPE_CHECKING:
    from mlx_server.engine.vision.pictures import Picture

MAX_REASON_CHARS = 300
"""How much of an exception's text is reported. Some of transformers' exceptions quote the whole chat."""

_THINKING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""The texts with which prompts begin the model's thinking, and those that end it."""


@dataclass(frozen=True)
class ChatTokens:
    """Turns chats into token ids, with a model's chat template (`template`) and tokenizer (`texts`).

    `context_tokens` is the length of the model's context. A chat that is far longer is refused. `needs_of`
    returns what a request's template requires of a conversation, for example that roles alternate. `marker`
    is the text that a template writes in place of an image; None if the model does not read images.
    """

    texts: TextTokens
    template: ChatTemplate
    context_tokens: int
    needs_of: Callable[[Generate], TemplateNeeds]
    marker: str | None = None

    def of_chat(self, op: Generate, pictures: Sequence[Picture]) -> list[int]:
        """Return the token ids of a request's chat. `pictures` are the request's images, in the order of
        their numbers.

        Raises RequestError if the chat cannot be rendered, and EngineError if the template process fails.
        """
        if not op.messages:
            raise RequestError("empty_prompt", "There are no messages: send at least one.")
        if not self.texts.tokenizer.has_chat_template and op.chat_template is None:
            raise RequestError(
                "not_a_chat_model", f"Model {op.model} has no chat template; send a plain prompt."
            )
        if op.chat_template is not None and self.template.process is None:
            raise RequestError(
                "invalid_request",
                f"Model {op.model} writes its prompts in code of its own: make it again without a template.",
            )
        if reserved := RESERVED_VARIABLES & (op.template or {}).keys():
            raise RequestError("invalid_request", f"{min(reserved)!r} cannot be a variable of a template.")
        check_tools(op.tools or ())
        messages = normalize_messages(op.messages)
        if len(messages) > 1 and _is_empty_answer(messages[-1]):
            del messages[-1]
        # If the last message is the beginning of an answer, written by the client, the model continues it.
        continues = messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls")
        try:
            return self._tokens_of_chat(op, messages, continues, pictures)
        except EngineError:
            raise
        except TemplateLimitExceeded as error:
            raise RequestError(
                "invalid_request",
                f"The chat template of {op.model} {error} and was stopped: shorten the messages, or use "
                "another model.",
            ) from error
        except TemplateProcessDied as error:
            raise EngineError(
                "internal_error", f"The chat template of {op.model} ended its process: {error}."
            ) from error
        except Exception as error:  # a template is a program that comes with the model: it may raise anything
            reason = " ".join(str(error)[: 2 * MAX_REASON_CHARS].split())[:MAX_REASON_CHARS]
            raise RequestError(
                "invalid_request", f"The chat template of {op.model} refuses these messages: {reason}"
            ) from error

    def _tokens_of_chat(
        self, op: Generate, messages: list[dict[str, Any]], continues: bool, pictures: Sequence[Picture]
    ) -> list[int]:
        """Return the token ids of a chat. If `continues`, the answer continues the last message. `pictures`
        are the request's images, in the order of `op.images`.

        If the template refuses the chat, another attempt renders it as alternating texts of user and
        assistant, a form that any template accepts. A chat that ends with an assistant message is also
        rendered without an answer at its end. If `continues`, a last attempt renders the last message as a
        complete one, after which a new answer begins. If all attempts fail, the exception of the first is
        raised. An EngineError, TemplateLimitExceeded or TemplateProcessDied is raised at once, without
        further attempts.
        """
        options = {"add_generation_prompt": not continues, "continue_final_message": continues}
        own = self.needs_of(op)
        fits = [own, replace(STRICTEST, text_parts=own.text_parts)]
        if messages[-1].get("role") == "assistant":
            fits = [need for fit in fits for need in (fit, replace(fit, no_final_answer=True))]
        attempts = [(needs, options) for needs in dict.fromkeys(fits)]
        if continues:
            attempts.append((own, {"add_generation_prompt": True}))
        objections: list[Exception] = []
        for needs, given in attempts:
            try:
                return self.render(op, messages, needs, given, pictures)
            except (EngineError, TemplateLimitExceeded, TemplateProcessDied):
                raise
            except Exception as objection:  # a template is a program: it may raise anything
                objections.append(objection)
        raise objections[0]

    def render(
        self,
        op: Generate,
        messages: list[dict[str, Any]],
        needs: TemplateNeeds,
        options: dict[str, bool],
        pictures: Sequence[Picture],
    ) -> list[int]:
        """Return the token ids of the chat `messages`, converted to the form that `needs` describes and
        rendered by the chat template.

        `op` supplies the tools, the template's variables and, if the request brings one, the template.
        `options` are passed to the tokenizer's `apply_chat_template`. If the answer continues the last
        message, but the template takes no answer at the end, the chat is rendered without that message, and
        its text is appended. `pictures` are the request's images, in the order of
        `op.images`. Raises EngineError if the text is far longer than the context, if it cannot
        be tokenized, or if the template has a wrong number of places for images, and whatever the template
        raises.
        """
        thoughts = begun = ""
        if needs.no_final_answer and options.get("continue_final_message"):
            if (split := split_final_answer(messages)) is not None:
                messages, thoughts, begun = split
            options = {"add_generation_prompt": True}
        tools = list(op.tools or ())
        if needs.plain_tools or (tools and not self.template.uses_tools(op.chat_template)):
            messages, tools = describe_tools(messages, tools), []
        variables = {} if op.think is None else {"enable_thinking": op.think}
        own = {} if op.chat_template is None else {"chat_template": op.chat_template}
        arguments = {**options, **variables, **(op.template or {}), **own}
        fitted, tools_given = fit_messages(messages, needs), fit_tools(tools, needs)
        # A resumed answer has to get the date of its first prompt, or it would continue another prompt.
        template = replace(self.template, time_s=op.created_s)
        rendered: str | Sequence[int]
        if order := image_order(fitted):
            assert self.marker is not None
            ordered = [pictures[number] for number in order]
            rendered = template.render_with_images(fitted, tools_given, arguments, ordered, self.marker)
        else:
            rendered = template.render(fitted, tools_given, arguments)
        if not isinstance(rendered, str):
            return [*rendered, *(self.texts.encode(begun, add_special_tokens=False) if begun else ())]
        rendered += _answer_after(rendered, thoughts, begun)
        if op.chat_template is not None:
            rendered = self.texts.with_start(rendered)
        if len(rendered) > CHUNK_CHARS + 2 * sum(map(len, texts_of(op))):  # the template has made it long
            check_length(op, [rendered], self.texts.tokenizer, self.context_tokens)
        return self.texts.encode(rendered, add_special_tokens=False)


def _answer_after(prompt: str, thoughts: str, text: str) -> str:
    """Return the beginning of an answer as the continuation of `prompt`. The thinking is left out unless the
    prompt begins it; it ends before the text.
    """
    for start, end in _THINKING:
        if prompt.rstrip().endswith(start):
            return f"{thoughts}\n{end}\n\n{text}" if text else thoughts
    return text


def _is_empty_answer(message: dict[str, Any]) -> bool:
    """Return whether the message is an assistant message without text, thinking or tool calls. Such a
    message has nothing that an answer could continue.
    """
    said = ("content", "tool_calls", "reasoning_content", "thinking")
    return message.get("role") == "assistant" and not any(message.get(key) for key in said)
