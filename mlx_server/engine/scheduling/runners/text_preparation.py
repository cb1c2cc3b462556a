"""Makes all that a generation needs before it can run: tokens, parser, memory, grammar, cached prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.output_parser import OutputMarkers, OutputParser
from mlx_server.engine.generation.prompts.render import prompt_tokens, tokens_before_last_message
from mlx_server.engine.generation.sampling import Processor, Sampler, make_processors, make_sampler
from mlx_server.engine.models.loading import LanguageModel
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.scheduling.request import BackgroundJobs, Request
from mlx_server.protocol import Done, Generate, Usage

ReserveMemory = Callable[[Generate, int, int], None]
"""Reserves KV for so many tokens of prompt and of answer. Raises InsufficientMemory or MustWait."""

PROMPT_END_TOKENS = 16
"""A thought that the chat template begins stands within the last tokens of the prompt."""


@dataclass(frozen=True)
class BatchInput:
    """What the batch is given for a request; `caches` hold its first `cached` tokens."""

    tokens: Sequence[int]
    sampler: Sampler
    processors: Sequence[Processor]
    caches: Sequence[Any]
    cached: int


class TextPreparation:
    """Prepares the requests of one language model: `begin`, and `finish` once the background jobs end."""

    def __init__(
        self,
        language_model: LanguageModel,
        workers: BackgroundWorkers,
        cache: ModelCache,
        reserve_memory: ReserveMemory,
    ) -> None:
        self._lm, self._workers, self._cache = language_model, workers, cache
        self._reserve_memory = reserve_memory
        self._snapshots_only = any(
            type(cache) is not KVCache for cache in make_prompt_cache(language_model.model)
        )

    def begin(self, request: Request, now: float) -> Done | None:
        """Reserve memory, and set `request.generation` and `request.jobs`.

        Return the answer instead if nothing has to run: the tokens are only counted, or an earlier engine
        sent the whole answer. Raises RequestError, InsufficientMemory or MustWait; the request then refers to
        nothing of the model, which may be unloaded while the request waits.
        """
        op = request.op
        if not isinstance(op, Generate):
            raise RequestError("not_an_embedding_model", f"Model {op.model} generates text; it cannot embed.")
        prompt = prompt_tokens(op, self._lm.tokenizer, self._lm.context_tokens)
        if op.count_only:
            return Done(op.id, "stop", Usage(len(prompt), 0))
        limit = answer_limit(op, len(prompt), self._lm.context_tokens)
        context = prompt if op.kind == "text" else ()
        detokenizer = Detokenizer(self._lm.decode, op.stop, context)
        parser, after_thought = self._parser(op, prompt)
        generation = Generation(
            op.id,
            prompt,
            limit,
            self._lm.end_tokens,
            detokenizer,
            now,
            request.load_s,
            parser,
            op.top_logprobs,
        )
        if done := generation.replay(op.emitted, now):
            return done
        self._reserve_memory(op, len(prompt), limit)
        if self._snapshots_only:
            generation.shared_prefix_tokens = tokens_before_last_message(op, self._lm.tokenizer, prompt)
        request.generation, request.jobs = generation, self._submit_jobs(op, prompt, after_thought)
        return None

    def _parser(self, op: Generate, prompt: Sequence[int]) -> tuple[OutputParser, tuple[int, ...]]:
        """Return the parser of the answer, and the tokens that end a thought which the prompt has begun."""
        markers = self._lm.markers
        if op.kind == "text":
            return OutputParser(OutputMarkers()), ()
        if op.think and not markers.thinking:
            raise RequestError("invalid_request", f"Model {op.model} does not support thinking.")
        end_of_prompt = self._lm.decode(prompt[-PROMPT_END_TOKENS:]).rstrip()
        thinking = markers.thinking is not None and end_of_prompt.endswith(markers.thinking[0])
        parser = OutputParser(markers, op.tool_choice, op.tools or (), thinking)
        if not thinking or markers.thinking is None:
            return parser, ()
        return parser, tuple(self._lm.tokenizer.encode(markers.thinking[1], add_special_tokens=False))

    def _submit_jobs(
        self, op: Generate, prompt: Sequence[int], after_thought: tuple[int, ...]
    ) -> BackgroundJobs:
        compile_grammar = self._grammar_job(op, after_thought)
        match = self._cache.find([*prompt, *op.emitted])
        return BackgroundJobs(
            self._workers.compiler.submit(compile_grammar) if compile_grammar else None,
            self._workers.reader.submit(self._cache.restore_job(match)) if match else None,
            match,
        )

    def _grammar_job(
        self, op: Generate, after_thought: tuple[int, ...]
    ) -> Callable[[], Processor | None] | None:
        """Return what the compiler must do before `op` can run, if anything. Logprobs need the vocabulary."""
        grammars, schema = self._lm.grammars, op.json_schema
        if schema is not None:
            return lambda: grammars.make_processor(schema, op.emitted, after_thought)
        return (
            grammars.read_vocabulary if op.top_logprobs is not None and not grammars.has_vocabulary else None
        )

    def finish(self, request: Request) -> BatchInput:
        """Collect what the jobs have made. Raises RequestError if the grammar cannot be used."""
        op, generation, jobs = request.op, request.generation, request.jobs
        assert isinstance(op, Generate)
        grammar = jobs.grammar.result() if jobs.grammar else None
        caches: list[Any] = []
        if jobs.prefix_match and jobs.prefix:
            restored = jobs.prefix.result()
            caches, generation.cached_tokens = self._cache.finish_restore(jobs.prefix_match, restored)
        return BatchInput(
            [*generation.prompt, *op.emitted],
            make_sampler(op.sampling, len(op.emitted)),
            make_processors(op.sampling) + ([grammar] if grammar else []),
            caches,
            generation.cached_tokens,
        )


def answer_limit(op: Generate, prompt_tokens: int, model_context_tokens: int) -> int:
    """Return how many tokens the answer may have: as asked for, within the context. Raises RequestError."""
    context = min(op.context_tokens or model_context_tokens, model_context_tokens)
    if prompt_tokens >= context:
        raise RequestError(
            "context_exceeded",
            f"The prompt has {prompt_tokens} tokens, and the context of {op.model} is {context}: shorten it.",
            prompt_tokens=prompt_tokens,
            context_tokens=context,
        )
    room = context - prompt_tokens
    return room if op.max_tokens is None or op.max_tokens < 0 else min(op.max_tokens, room)
