"""Prepare everything that a generation needs before it can run: tokens, parser, memory, grammar, cached
prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompt_scoring import PromptScorer
from mlx_server.engine.generation.sampling import Processor, Sampler, make_processors, make_sampler
from mlx_server.engine.grammar.constraint import Gate
from mlx_server.engine.grammar.grammars import GrammarProcessor
from mlx_server.engine.kv.request_caches import make_request_caches
from mlx_server.engine.models.loading import LanguageModel
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.request import BackgroundJobs, PreparedPrompt, Request
from mlx_server.engine.scheduling.runners.prompt_preparation import PromptPreparation
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.protocol import Generate, PromptReport

ReserveMemory = Callable[[Generate, int, int], None]
"""Reserves KV for the given numbers of prompt and answer tokens. Raises InsufficientMemory or MustWait."""


@dataclass(frozen=True)
class BatchInput:
    """The input of the batch for one request; `caches` hold its first `cached` tokens."""

    tokens: Sequence[int]
    sampler: Sampler
    processors: Sequence[Processor]
    caches: Sequence[Any]
    cached: int


class TextPreparation:
    """Prepares the requests of one language model: `tokenize`, `begin`, then `finish` when the jobs are done.

    Work for one request that does not use MLX runs inside `request_fence.confined`. The owner has to close
    it.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        workers: BackgroundWorkers,
        cache: ModelCache,
        reserve_memory: ReserveMemory,
        max_repeated_tokens: int = 0,
        kv: KvQuantization | None = None,
    ) -> None:
        self._lm, self._workers, self._cache, self._kv = language_model, workers, cache, kv
        self._reserve_memory = reserve_memory
        snapshots_only = any(type(cache) is not KVCache for cache in make_prompt_cache(language_model.model))
        self._prompts = PromptPreparation(language_model, snapshots_only, max_repeated_tokens)
        self._tokenizer = workers.new_tokenizer()

    def tokenize(self, request: Request, now: float) -> Future[PreparedPrompt]:
        """Return the job that makes the request's prompt. The job raises EngineError. Raises RequestError for
        an operation without a prompt.
        """
        op, load_s = request.op, request.load_s
        if not isinstance(op, Generate):
            raise RequestError("not_an_embedding_model", f"Model {op.model} generates text; it cannot embed.")

        return self._tokenizer.submit(partial(self._prepare, op, now, load_s))

    def check(self, op: Generate) -> Future[PreparedPrompt]:
        """Return the job that makes the prompt of a request that is only checked."""
        return self._tokenizer.submit(partial(self._prepare, op, 0.0, 0.0))

    def _prepare(self, op: Generate, now: float, load_s: float) -> PreparedPrompt:
        with confined(op.id, "making its prompt"):
            return self._prompts.prepare(op, now, load_s)

    def begin(self, request: Request, now: float) -> None:
        """Reserve memory for a request whose prompt is made, and set its `generation` and `jobs`.

        Raises EngineError or MustWait; the request then has neither.
        """
        op, prompt = request.op, request.prompt
        assert isinstance(op, Generate) and prompt is not None
        generation = prompt.generation
        self._reserve_memory(op, len(generation.prompt), generation.limit_tokens)
        generation.started_s = now
        request.jobs = self._submit_jobs(op, generation.prompt, prompt.gate)
        request.generation, request.prompt = generation, None

    def _submit_jobs(self, op: Generate, prompt: Sequence[int], gate: Gate | None) -> BackgroundJobs:
        make_grammar = self._grammar_job(op, gate)
        compiled = self._workers.compiler.submit(make_grammar) if make_grammar else None
        if op.prompt_logprobs:  # the model has to read all of the prompt
            caches = make_request_caches(self._lm.model, self._kv)
            scorer = PromptScorer(self._lm.model, prompt, caches, op.top_logprobs or 0)
            return BackgroundJobs(compiled, scorer=scorer)
        match = self._cache.find([*prompt, *op.emitted])
        return BackgroundJobs(
            compiled,
            self._workers.reader.submit(self._cache.restore_job(match)) if match else None,
            match,
        )

    def _grammar_job(self, op: Generate, gate: Gate | None) -> Callable[[], GrammarProcessor | None] | None:
        """Return the compiler's job that `op` needs before it can run, or None. Logprobs need
        the vocabulary.
        """
        grammars, schema = self._lm.grammars, op.json_schema
        if schema is None and (op.top_logprobs is None or grammars.has_vocabulary):
            return None

        def make_grammar() -> GrammarProcessor | None:
            with confined(op.id, "compiling its grammar"):
                if schema is not None:
                    return grammars.make_processor(schema, op.emitted, gate)
                grammars.read_vocabulary()
                return None

        return make_grammar

    def finish(self, request: Request) -> BatchInput:
        """Collect the results of the jobs. Raises EngineError if the grammar cannot be used."""
        op, generation, jobs = request.op, request.generation, request.jobs
        assert isinstance(op, Generate)
        grammar = request.grammar
        caches: list[Any] = []
        if jobs.prefix_match and jobs.prefix:
            restored = jobs.prefix.result()
            caches, generation.cached_tokens = self._cache.finish_restore(jobs.prefix_match, restored)
        cached = generation.cached_tokens
        if jobs.scorer:
            text = self._lm.decode(generation.prompt)
            generation.report = PromptReport(tuple(generation.prompt), text, logprobs=jobs.scorer.scores)
            caches, cached = jobs.scorer.caches, len(generation.prompt) - 1
        return BatchInput(
            [*generation.prompt, *op.emitted],
            make_sampler(op.sampling, len(op.emitted)),
            make_processors(op.sampling) + ([grammar] if grammar else []),
            caches if cached else [],
            cached,
        )

    def close(self) -> None:
        """Cancel the jobs that have not begun, and end the model's template process."""
        self._tokenizer.close()
        self._lm.close()
