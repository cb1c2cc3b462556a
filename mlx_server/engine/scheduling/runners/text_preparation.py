"""Prepare everything that a generation needs before it can run: tokens, parser, memory, grammar, cached
prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.errors import wrong_kind
from mlx_server.engine.generation.prompt_scoring import PromptScorer
from mlx_server.engine.generation.sampling import Processor, Sampler, make_processors, make_sampler
from mlx_server.engine.grammar.constraint import Gate
from mlx_server.engine.grammar.grammars import GrammarProcessor
from mlx_server.engine.kv.request_caches import make_request_caches
from mlx_server.engine.memory.guard import ImageShapes
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.prompt_cache.model_cache import ModelCache
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.request import BackgroundJobs, PreparedPrompt, Request
from mlx_server.engine.scheduling.runners.prompt_preparation import PromptPreparation, grammar_schema
from mlx_server.engine.vision.pictures import PlacedPicture, cache_keys
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.model_store.forecasts import PREFILL_STEP_TOKENS
from mlx_server.protocol import Generate, PromptReport

if TYPE_CHECKING:  # imported with the first image
    from mlx_server.engine.vision.image_prefill import ImagePrefill

ReserveMemory = Callable[[Generate, int, int, ImageShapes], None]
"""Reserves memory for the keys and values of the given numbers of prompt and answer tokens, and for the
vision tower to compute images whose pixel arrays have these shapes. Raises InsufficientMemory if the request
can never fit, and MustWait if it does not fit at this time."""


@dataclass(frozen=True)
class BatchInput:
    """The arguments of `Batch.add` for one request. `caches` hold the keys and values of the first `cached`
    tokens.
    """

    tokens: Sequence[int]
    sampler: Sampler
    processors: Sequence[Processor]
    caches: Sequence[Any]
    cached: int


class TextPreparation:
    """Prepares the requests of one language model. For each request, the runner calls `tokenize`, then
    `begin`, then `finish` once the jobs are done that `begin` has begun: compiling the grammar, restoring the
    cached prefix, and computing the images or the log-probabilities of the prompt. The owner must call
    `close`.

    `begin` calls `reserve_memory`, which reserves memory for the request's keys and values and its images, or
    raises an error that `begin` passes on. An answer is ended when more than `max_repeated_tokens` tokens at
    its end are equal; 0 allows any number. With `kv`, keys and values are quantized. A prompt with images is
    processed in slices of `step_tokens` tokens.

    All work for one request that does not use MLX runs within `request_fence.confined`, so that an error in
    it fails only this request.
    """

    def __init__(
        self,
        language_model: LanguageModel,
        workers: BackgroundWorkers,
        cache: ModelCache,
        reserve_memory: ReserveMemory,
        max_repeated_tokens: int = 0,
        kv: KvQuantization | None = None,
        step_tokens: int = PREFILL_STEP_TOKENS,
    ) -> None:
        self._lm, self._workers, self._cache, self._kv = language_model, workers, cache, kv
        self._step_tokens = step_tokens
        self._reserve_memory = reserve_memory
        snapshots_only = any(type(cache) is not KVCache for cache in make_prompt_cache(language_model.model))
        self._prompts = PromptPreparation(language_model, snapshots_only, max_repeated_tokens)
        self._tokenizer = workers.new_tokenizer()

    def tokenize(self, request: Request, now: float) -> Future[PreparedPrompt]:
        """Begin to prepare the request's prompt on the tokenizer's thread, and return the job. The job raises
        EngineError if it fails. This method raises RequestError if the operation has no prompt.
        """
        op, load_s = request.op, request.load_s
        if not isinstance(op, Generate):
            raise wrong_kind(op, "generate")

        return self._tokenizer.submit(partial(self._prepare, op, now, load_s))

    def check(self, op: Generate) -> Future[PreparedPrompt]:
        """Begin to prepare, on the tokenizer's thread, the prompt of an operation that only asks whether it
        can be served (`check_only`). Return the future of the prepared prompt.
        """
        return self._tokenizer.submit(partial(self._prepare, op, 0.0, 0.0))

    def _prepare(self, op: Generate, now: float, load_s: float) -> PreparedPrompt:
        with confined(op.id, "making its prompt"):
            return self._prompts.prepare(op, now, load_s)

    def begin(self, request: Request, now: float) -> None:
        """Reserve memory for a request whose prompt has been prepared, begin the jobs that must be done
        before the request can run (`BackgroundJobs`), and set its `generation` and `jobs`.

        Raises EngineError if the request cannot be served, and MustWait if memory has no room at this time.
        In both cases, the request is unchanged.
        """
        op, prepared = request.op, request.prompt
        assert isinstance(op, Generate) and prepared is not None
        generation = prepared.generation
        images = self._uncomputed(prepared.pictures)
        self._reserve_memory(op, len(generation.prompt), generation.limit_tokens, images)
        generation.started_s = now
        request.jobs = self._submit_jobs(op, generation.prompt, prepared.gate, prepared.pictures)
        request.generation, request.pictures, request.prompt = generation, prepared.pictures, None

    def _uncomputed(self, placed: Sequence[PlacedPicture]) -> ImageShapes:
        """Return the shapes of the images whose features the vision tower has yet to compute."""
        vision = self._lm.vision
        pictures = [one.picture for one in placed]
        return [each.pixels for each in pictures if vision is None or vision.tower.known(each) is None]

    def _submit_jobs(
        self, op: Generate, prompt: Sequence[int], gate: Gate | None, pictures: Sequence[PlacedPicture]
    ) -> BackgroundJobs:
        make_grammar = self._grammar_job(op, gate)
        compiled = self._workers.compiler.submit(make_grammar) if make_grammar else None
        if op.prompt_logprobs:  # the model has to process the whole prompt
            caches = make_request_caches(self._lm.model, self._kv)
            scorer = PromptScorer(self._lm.model, prompt, caches, op.top_logprobs or 0)
            return BackgroundJobs(compiled, scorer=scorer)
        tokens = [*prompt, *op.emitted]
        match = self._cache.find(cache_keys(tokens, pictures))
        ready, cached = self._cache.take_ready(match)
        return BackgroundJobs(
            compiled,
            self._workers.reader.submit(self._cache.restore_job(match)) if match and not ready else None,
            match,
            images=self._image_prefill(op, tokens, pictures),
            ready=(ready, cached),
        )

    def _image_prefill(
        self, op: Generate, tokens: Sequence[int], pictures: Sequence[PlacedPicture]
    ) -> ImagePrefill | None:
        if not pictures:
            return None
        from mlx_server.engine.vision.image_prefill import ImagePrefill

        vision, reader = self._lm.vision, self._lm.prompts.images
        assert vision is not None and reader is not None  # otherwise the images would have been refused

        def load_inputs(number: int) -> Future[dict[str, Any]]:
            return self._tokenizer.submit(lambda: reader.inputs_of(op.images[number]))

        return ImagePrefill(vision, self._lm.model, tokens, pictures, self._step_tokens, load_inputs)

    def begin_images(self, request: Request) -> None:
        """Begin to process a prompt with images. The beginning of the prompt whose keys and values come from
        the prompt cache is not computed again.
        """
        images = request.jobs.images
        assert images is not None
        caches, cached = self._restored(request)
        images.begin(list(caches) if cached else make_request_caches(self._lm.model, self._kv), cached)

    def _restored(self, request: Request) -> tuple[Sequence[Any], int]:
        """Return caches that hold the keys and values of the prompt's beginning, and the number of tokens in
        them, which is 0 if the prompt cache has nothing of the prompt.
        """
        jobs = request.jobs
        if not (jobs.prefix_match and jobs.prefix):
            return jobs.ready
        return self._cache.finish_restore(jobs.prefix_match, jobs.prefix.result())

    def _grammar_job(self, op: Generate, gate: Gate | None) -> Callable[[], GrammarProcessor | None] | None:
        """Return the job that compiles the grammar for `op` and returns its logits processor. The grammar
        applies once `gate` opens, or from the first token on if `gate` is None.

        If `op` has no grammar but asks for log-probabilities, return a job that only reads the vocabulary,
        which log-probabilities need, and returns None. Return None instead of a job if `op` needs neither, or
        if only the vocabulary is needed and it has been read already.
        """
        grammars, schema = self._lm.grammars, grammar_schema(op, self._lm.markers)
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
        """Return the request's input for the batch, made from the results of its background jobs (`begin`),
        which must all be done. Raises EngineError if a job has failed, for example because the grammar cannot
        be used.
        """
        op, generation, jobs = request.op, request.generation, request.jobs
        assert isinstance(op, Generate)
        grammar = request.grammar
        if jobs.images:
            caches: Sequence[Any] = jobs.images.caches
            cached = jobs.images.cached
            generation.cached_tokens = jobs.images.restored
        else:
            caches, cached = self._restored(request)
            generation.cached_tokens = cached
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
        """Cancel the jobs that have not begun, and end the process that renders the model's chat template."""
        self._tokenizer.close()
        self._lm.close()
