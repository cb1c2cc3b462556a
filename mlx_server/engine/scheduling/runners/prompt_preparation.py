"""Prepare a generation before it needs memory: its prompt, the parser of its answer, and the state of a
resumed answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.harmony import HarmonyParser, is_header_without_grammar
from mlx_server.engine.generation.harmony_tokens import HarmonyGate, HarmonyTokens
from mlx_server.engine.generation.output_parser import AnswerParser, OutputMarkers, OutputParser
from mlx_server.engine.generation.prompt_scoring import check_reported
from mlx_server.engine.generation.prompts.length_check import context_exceeded
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.shortening import Shortener
from mlx_server.engine.grammar.answer_or_calls import answer_schema
from mlx_server.engine.grammar.constraint import Gate, GateAfter
from mlx_server.engine.log import log_event
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.scheduling.request import PreparedPrompt
from mlx_server.engine.vision.pictures import Picture
from mlx_server.protocol import Done, Generate, PromptReport, Usage

PROMPT_END_TOKENS = 16
"""How many last tokens of the prompt are decoded to see whether the prompt ends with a start of thinking."""


class PromptPreparation:
    """Prepares the prompts of one language model, on a background thread. It does not use MLX.

    With `finds_shared_prefix`, it also determines how much of a chat's prompt other chats may share.
    `max_repeated_tokens` becomes a limit of each prepared generation: its answer ends when the same token has
    come more often than that in a row; 0 means no limit.
    """

    def __init__(
        self, language_model: LanguageModel, finds_shared_prefix: bool, max_repeated_tokens: int = 0
    ) -> None:
        prompts: PromptMaker = language_model.prompts
        self._prompts = prompts
        self._shortener = Shortener(prompts.tokens, prompts.count, prompts.context_tokens)
        self._decode, self._markers = language_model.decode, language_model.markers
        self._end_tokens = language_model.end_tokens
        self._finds_shared_prefix = finds_shared_prefix
        self._max_repeated_tokens = max_repeated_tokens

    def prepare(self, op: Generate, now: float, load_s: float) -> PreparedPrompt:
        """Return the prepared prompt of `op`. `now` is the current time. `load_s` is how many seconds the
        request waited for its model's load, which is reported with the answer.

        Raises EngineError if the request is invalid or too long, or its prompt cannot be rendered and
        tokenized.
        """
        op, pictures = self._prompts.read_images(op)
        asked = op
        op, prompt = self._shortener_for(pictures).fitting(asked)
        if op is not asked and not op.check_only:
            kept = len(op.messages or ())
            cause = f"it was longer than its context; {kept} of {len(asked.messages or ())} messages are left"
            log_event("prompt_shortened", cause=cause, id=op.id, model=op.model, prompt_tokens=len(prompt))
        parser, gate = self._parser(op, prompt)
        context = prompt if op.kind == "text" else ()
        limit = 0 if op.count_only else answer_limit(op, len(prompt), self._prompts.context_tokens)
        generation = Generation(
            op.id,
            prompt,
            limit,
            self._end_tokens if op.suffix is None else self._end_tokens | self._prompts.infill_ends,
            Detokenizer(self._decode, op.stop, context),
            now,
            load_s,
            parser,
            op.top_logprobs,
            self._max_repeated_tokens,
            op.returns_context,
            self._report(op, prompt) if op.reports_prompt else None,
        )
        if op.count_only:
            answer = Done(op.id, "stop", Usage(len(prompt), 0), prompt=generation.report)
            return PreparedPrompt(generation, answer=answer)
        check_reported(op, len(prompt))
        if replayed := generation.replay(op.emitted, now):
            return PreparedPrompt(generation, answer=replayed)
        if self._finds_shared_prefix:
            generation.shared_prefix_tokens = self._prompts.tokens_before_last_message(op, prompt, pictures)
        return PreparedPrompt(generation, gate, pictures=self._prompts.placed(op, prompt, pictures))

    def _shortener_for(self, pictures: Sequence[Picture]) -> Shortener:
        """Return the Shortener that makes the prompt of a request with these images fit into the context."""
        if not pictures:
            return self._shortener
        return replace(self._shortener, tokens_of=lambda op: self._prompts.tokens(op, pictures))

    def _report(self, op: Generate, prompt: Sequence[int]) -> PromptReport:
        pieces = tuple(self._decode([token]) for token in prompt) if op.reports_pieces else ()
        return PromptReport(tuple(prompt), self._decode(prompt), pieces)

    def _parser(self, op: Generate, prompt: Sequence[int]) -> tuple[AnswerParser, Gate | None]:
        """Return the parser of the answer, and the `Gate` that decides from which token on a grammar applies,
        if the request has one.

        The gate opens when the model's thinking has ended. A model with the Harmony format, such as gpt-oss,
        writes tool calls, and the preamble to them, as separate messages; if the model may choose whether to
        call tools, the gate remains closed for these messages. The gate is None if the request or the end of
        the prompt shows that no thinking is to be expected; a grammar then applies from the first token on.

        Raises RequestError if the request asks for thinking, but the model does not support it.
        """
        if op.kind == "text":
            return OutputParser(OutputMarkers()), None
        markers = self._markers
        if op.think and not markers.thinks:
            raise RequestError("invalid_request", f"Model {op.model} does not support thinking.")
        if markers.harmony:
            return self._harmony_parser(op, prompt, markers.harmony)
        end_of_prompt = self._decode(prompt[-PROMPT_END_TOKENS:]).rstrip()
        thinking = markers.thinking is not None and end_of_prompt.endswith(markers.thinking[0])
        parser = OutputParser(markers, op.tool_choice, op.tools or (), thinking, _chooses(op))
        if not thinking or markers.thinking is None:
            return parser, None
        end = self._prompts.tokenizer.encode(markers.thinking[1], add_special_tokens=False)
        return parser, GateAfter(end)

    def _harmony_parser(
        self, op: Generate, prompt: Sequence[int], tokens: HarmonyTokens
    ) -> tuple[AnswerParser, Gate | None]:
        calls = self._markers.calls[0]
        parser = HarmonyParser(tokens, op.tool_choice, op.tools or (), calls, _chooses(op))
        parser.begin_after(prompt, self._decode)
        if not (parser.is_in_header or parser.is_thinking):
            return parser, None
        if not _chooses(op):
            return parser, HarmonyGate(tokens)
        return parser, HarmonyGate(tokens, lambda header: is_header_without_grammar(self._decode(header)))


def grammar_schema(op: Generate, markers: OutputMarkers) -> dict[str, Any] | None:
    """Return the JSON schema from which the grammar of the answer to `op` is made; None if `op` has no
    schema.

    If the model may choose between an answer and tool calls, `op.json_schema` allows both. A model whose
    `markers` are those of the Harmony format, such as gpt-oss, writes calls as separate messages, to which
    the grammar does not apply. For such a model, the schema of the answer alone is returned.
    """
    answer = answer_schema(op.json_schema or {}) if markers.harmony and _chooses(op) else None
    return op.json_schema if answer is None else answer


def _chooses(op: Generate) -> bool:
    """Return whether the model chooses between an answer that matches the client's schema and tool calls."""
    return op.json_schema is not None and op.tool_choice == "auto"


def answer_limit(op: Generate, prompt_tokens: int, model_context_tokens: int) -> int:
    """Return how many tokens the answer may have: the client's limit, or less if the context has less room.
    Raises RequestError (`context_exceeded`) if the prompt fills the context.
    """
    context = min(op.context_tokens or model_context_tokens, model_context_tokens)
    if prompt_tokens >= context:
        raise context_exceeded(op.model, prompt_tokens, context)
    room = context - prompt_tokens
    return room if op.max_tokens is None or op.max_tokens < 0 else min(op.max_tokens, room)
