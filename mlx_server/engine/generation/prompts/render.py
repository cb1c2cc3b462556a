"""Turn a `Generate` operation into the token ids of its prompt, with the model's own chat template."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.generation.prompts.conversation import (
    STRICTEST,
    TemplateNeeds,
    fit_messages,
    fit_tools,
)
from mlx_server.engine.generation.prompts.infilling import infill_tokens
from mlx_server.engine.generation.prompts.length_check import (
    CHUNK_CHARS,
    check_length,
    texts_of,
    tokenization_error,
)
from mlx_server.engine.generation.prompts.messages import check_nesting, check_tools, normalize_messages
from mlx_server.engine.generation.prompts.template_probe import TemplateProbe
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateLimitExceeded,
    TemplateProcessDied,
)
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from mlx_server.engine.generation.prompts.templates.remote_render import rendered_by
from mlx_server.engine.generation.prompts.token_ids import check_client_ids, check_tokenizer_ids
from mlx_server.engine.generation.prompts.tool_prompt import describe_tools
from mlx_server.engine.prompt_cache.block import common_prefix_length
from mlx_server.protocol import Generate

MAX_OTHER_TEMPLATES = 16
"""Templates besides the model's own whose needs are remembered."""
MAX_REASON_CHARS = 300
"""Some of transformers' objections quote the whole chat."""


def _reserved_variables() -> frozenset[str]:
    """Return the argument names of transformers' rendering functions, which clients cannot use as template
    variables.
    """
    functions = (PreTrainedTokenizerBase.apply_chat_template, chat_template_utils.render_jinja_template)
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return frozenset(names - {"documents"} | {"messages", "template_kwargs"})


RESERVED_VARIABLES = _reserved_variables()


@dataclass(frozen=True)
class PromptMaker:
    """Makes the prompts of one model. It does not use MLX, and takes up to seconds, so the MLX thread must
    not call it.

    `templates` renders the model's chat template. It is None if the model has none, or if mlx-lm or the
    tokenizer's class renders it in Python, as code that does not come with the model. With
    `renders_to_tokens`, such a class returns tokens instead of text. `token_rows` is how many tokens the
    model has weights for, if that is known. `call_markers` are the texts before and after the model's calls.
    `needs` is the shape of conversation that the template requires; `needs_of_others` caches the needs of
    templates that requests brought with them.
    """

    tokenizer: Any
    templates: TemplateProcess | None
    context_tokens: int
    token_rows: int | None = None
    renders_to_tokens: bool = False
    call_markers: tuple[str, str] = ("<tool_call>", "</tool_call>")
    needs: TemplateNeeds = TemplateNeeds()
    needs_of_others: dict[str, TemplateNeeds] = field(default_factory=dict, compare=False)

    def with_needs(self) -> PromptMaker:
        """Return a copy whose `needs` were found out by rendering probes with the model's template."""
        if not self.tokenizer.has_chat_template:
            return self

        return replace(self, needs=self._probed(None))

    def _needs_of(self, op: Generate) -> TemplateNeeds:
        """Return what the template of a request needs: the model's own, or one that the request brings."""
        if op.chat_template is None:
            return self.needs
        if op.chat_template not in self.needs_of_others:
            if len(self.needs_of_others) >= MAX_OTHER_TEMPLATES:
                self.needs_of_others.clear()
            self.needs_of_others[op.chat_template] = self._probed(op.chat_template)
        return self.needs_of_others[op.chat_template]

    def _probed(self, chat_template: str | None) -> TemplateNeeds:
        own = {} if chat_template is None else {"chat_template": chat_template}

        def render(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> str:
            rendered = self._render(messages, tools, {"add_generation_prompt": True, **own})
            return rendered if isinstance(rendered, str) else str(self.tokenizer.decode(rendered))

        return TemplateProbe(render, self.call_markers).needs(self._template_uses_tools(chat_template))

    def tokens(self, op: Generate) -> list[int]:
        """Return the prompt's token ids, without the answer's tokens in `op.emitted`.

        There may be more tokens than the context holds. Raises RequestError for an invalid prompt,
        EngineError if the template process fails.
        """
        check_nesting(op)
        biased = (token for token, _ in op.sampling.logit_bias)
        check_client_ids([*op.emitted, *op.context_ids, *biased], self._token_limit)
        check_length(op, texts_of(op), self.tokenizer, self.context_tokens)
        tokens = self._chat_tokens(op) if op.kind == "chat" else self._text_tokens(op)
        if not tokens:
            raise RequestError("empty_prompt", "The prompt is empty: send at least one token of text.")
        check_tokenizer_ids(tokens, self.token_rows, op.model)
        if op.context_ids and tokens[:1] == self._start():
            del tokens[0]  # it stands at the beginning only
        return [*op.context_ids, *tokens]

    def count(self, text: str) -> int:
        """Return how many tokens a text has. Raises RequestError if the tokenizer cannot read it."""
        return len(self._encode(text, add_special_tokens=False))

    def tokens_before_last_message(self, op: Generate, prompt: Sequence[int]) -> int:
        """Return how many of a chat's `prompt` tokens precede its last message: other chats may share them.

        Return 0 if that is unknown: the prompt is a text, there is only one message, or the template refuses
        the messages without the last one (some templates require a user's message).
        """
        messages = list(op.messages or ())[:-1]
        if op.kind != "chat" or not messages:
            return 0
        try:
            messages = normalize_messages(messages)
            before = self._apply_template(op, messages, self._needs_of(op), {"add_generation_prompt": False})
        except Exception:  # the template may raise anything; without this number, less is found in the cache
            return 0
        return common_prefix_length(before, prompt)

    @property
    def _token_limit(self) -> int:
        known = len(self.tokenizer)
        return known if self.token_rows is None else min(known, self.token_rows)

    def _text_tokens(self, op: Generate) -> list[int]:
        if op.prompt_ids is not None:
            check_client_ids(op.prompt_ids, self._token_limit)
            return list(op.prompt_ids)
        prompt = op.prompt or ""
        if op.suffix is not None:
            return self._infill_tokens(op.model, prompt, op.suffix)
        bos = self.tokenizer.bos_token
        adds_special_tokens = op.adds_special_tokens and (bos is None or not prompt.startswith(bos))
        return self._encode(prompt, adds_special_tokens) if prompt else []

    @property
    def infill_ends(self) -> frozenset[int]:
        """Return the tokens that end the answer to a request with a suffix."""
        markers = infill_tokens(self.tokenizer)
        return markers.ends if markers else frozenset()

    def _infill_tokens(self, model: str, before: str, after: str) -> list[int]:
        markers = infill_tokens(self.tokenizer)
        if markers is None:
            raise RequestError(
                "invalid_request",
                f"Model {model} does not support insert: its tokenizer has no tokens for the text before and "
                "after a gap. Leave out the suffix.",
            )
        texts = (self._encode(text, add_special_tokens=False) for text in (before, after))
        return markers.prompt(self._start(), *texts)

    def _start(self) -> list[int]:
        """Return the token that the tokenizer puts before every text, if there is one.

        It is not always the `bos_token`: SmolLM2's is the one that begins each message.
        """
        start = self._encode("", add_special_tokens=True)[:1]
        return start if start == [self.tokenizer.bos_token_id] else []

    def _chat_tokens(self, op: Generate) -> list[int]:
        if not op.messages:
            raise RequestError("empty_prompt", "There are no messages: send at least one.")
        if not self.tokenizer.has_chat_template:
            raise RequestError(
                "not_a_chat_model", f"Model {op.model} has no chat template; send a plain prompt."
            )
        if op.chat_template is not None and self.templates is None:
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
        # The last message may be the beginning of an answer, written by the client: the model continues it.
        continues = messages[-1].get("role") == "assistant" and not messages[-1].get("tool_calls")
        try:
            return self._tokens_of_chat(op, messages, continues)
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

    def _tokens_of_chat(self, op: Generate, messages: list[dict[str, Any]], continues: bool) -> list[int]:
        """Return the token ids of a chat whose last message the answer may continue.

        A chat that the template refuses is rendered again in the shape that any template takes, and then with
        its last message complete. Raises EngineError, and the template's first objection.
        """
        options = {"add_generation_prompt": not continues, "continue_final_message": continues}
        own = self._needs_of(op)
        attempts = [(own, options), (STRICTEST, options)]
        if continues:
            attempts.append((own, {"add_generation_prompt": True}))
        objections: list[Exception] = []
        for needs, given in attempts:
            try:
                return self._apply_template(op, messages, needs, given)
            except (EngineError, TemplateLimitExceeded, TemplateProcessDied):
                raise
            except Exception as objection:  # a template is a program: it may raise anything
                objections.append(objection)
        raise objections[0]

    def _apply_template(
        self, op: Generate, messages: list[dict[str, Any]], needs: TemplateNeeds, options: dict[str, bool]
    ) -> list[int]:
        """Return the token ids of the rendered chat. Raises EngineError, and whatever the template raises."""
        tools = list(op.tools or ())
        if needs.plain_tools or (tools and not self._template_uses_tools(op.chat_template)):
            messages, tools = describe_tools(messages, tools), []
        variables = {} if op.think is None else {"enable_thinking": op.think}
        own = {} if op.chat_template is None else {"chat_template": op.chat_template}
        arguments = {**options, **variables, **(op.template or {}), **own}
        rendered = self._render(fit_messages(messages, needs), fit_tools(tools, needs), arguments)
        if not isinstance(rendered, str):
            return list(rendered)
        if len(rendered) > CHUNK_CHARS + 2 * sum(map(len, texts_of(op))):  # made long by the template
            check_length(op, [rendered], self.tokenizer, self.context_tokens)
        return self._encode(rendered, add_special_tokens=False)

    def _render(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, arguments: dict[str, Any]
    ) -> str | Sequence[int]:
        """Return the text of a chat, or its token ids if the tokenizer's class renders to tokens."""
        if self.templates is None:
            tokenize = self.renders_to_tokens
            rendered = self.tokenizer.apply_chat_template(
                messages, tokenize=tokenize, tools=tools, **arguments
            )
        else:
            with rendered_by(self.templates):
                rendered = self.tokenizer.apply_chat_template(
                    messages, tokenize=False, tools=tools, **arguments
                )
        return rendered if isinstance(rendered, str) else list(rendered)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        try:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))
        except Exception as error:  # for example at a lone surrogate, which JSON can carry and UTF-8 cannot
            raise tokenization_error(error) from error

    def _template_uses_tools(self, chat_template: str | None = None) -> bool:
        """Return True if the template has a place for tools: `chat_template`, or the model's own."""
        if chat_template is not None:
            return "tools" in chat_template
        template = str(getattr(self.tokenizer, "chat_template", ""))
        return bool(self.tokenizer.has_tool_calling) or "tools" in template


def _is_empty_answer(message: dict[str, Any]) -> bool:
    """Return whether the message is an assistant's message without content, which the answer
    cannot continue.
    """
    said = ("content", "tool_calls", "reasoning_content", "thinking")
    return message.get("role") == "assistant" and not any(message.get(key) for key in said)
