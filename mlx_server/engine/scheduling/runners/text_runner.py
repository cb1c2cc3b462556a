"""The runner of a language model, whose requests run in one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.errors import EngineError
from mlx_server.engine.generation.batch import Batch, BatchLimits, Prefilled, Sampled
from mlx_server.engine.generation.drafting.draft_counts import DraftCounts
from mlx_server.engine.generation.drafting.draft_model import DraftModel
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.logprobs import Array, logprobs_of, to_numpy
from mlx_server.engine.log import log_event
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.models.vocabulary import token_rows
from mlx_server.engine.prompt_cache.model_cache import ModelCache, StoredBlocks
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.request import PreparedPrompt, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.kv_reservations import extend_kv_reservations
from mlx_server.engine.scheduling.runners.prompt_steps import PromptSteps
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.engine.scheduling.runners.text_preparation import TextPreparation
from mlx_server.engine.vision.pictures import cache_keys, without_inputs
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from mlx_server.protocol import Done, Event, Generate, Logprobs, Prefill

CACHE_EVERY_TOKENS = 64
"""A running answer is stored in the prompt cache every time it has grown by this many tokens, so that the
keys and values of at most this many tokens are lost if the engine dies."""


class TextRunner(Runner):
    """Runs the requests of one language model in one batch. At most `limits.max_running` of them run at the
    same time, and the batch queues the others.

    `cache` is the model's part of the prompt cache, and `guard` reserves memory for each request. `kv` says
    how keys and values are quantized; None: not at all. An answer is ended when more than
    `max_repeated_tokens` tokens at its end are equal; 0 allows any number. The drafted and the accepted
    tokens are added to `draft_counts`, which several runners may share; with None, they are not reported.
    """

    def __init__(
        self,
        model: str,
        requests: EngineRequests,
        language_model: LanguageModel,
        limits: BatchLimits,
        workers: BackgroundWorkers,
        cache: ModelCache,
        guard: MemoryGuard,
        kv: KvQuantization | None = None,
        max_repeated_tokens: int = 0,
        draft_counts: DraftCounts | None = None,
    ) -> None:
        super().__init__(model, requests)
        self._lm, self._workers, self._cache, self._guard = language_model, workers, cache, guard
        self._preparation = TextPreparation(
            language_model, workers, cache, guard.admit, max_repeated_tokens, kv, limits.prefill_step_tokens
        )
        self._prompt_steps = PromptSteps(model, requests, self._preparation, cache, language_model.grammars)
        self._batch = Batch(
            language_model.model,
            limits.max_running,
            limits.prefill_step_tokens,
            kv,
            drafting=limits.drafting,
            draft_counts=draft_counts,
            draft_model=draft_model_of(language_model, limits.prefill_step_tokens),
        )
        self._in_batch: dict[int, Request] = {}  # by uid; also finished requests whose KV is not cached yet
        self._pending_kv: dict[int, bool] = {}  # uid -> whether a snapshot of its whole state is worth taking
        self._warmed_up = False

    @property
    def can_step(self) -> bool:
        return super().can_step or self._prompt_steps.can_step

    # --- taking requests up ---

    def tokenize(self, request: Request, now: float) -> None:
        request.tokenization = self._preparation.tokenize(request, now)
        self._requests.move(request, RequestStatus.TOKENIZING)

    def check(self, op: Generate) -> Future[PreparedPrompt]:
        return self._preparation.check(op)

    def take_tokens(self, request: Request) -> Sequence[Event]:
        prompt: PreparedPrompt = request.take_tokenized()
        if prompt.answer:
            self._requests.finish(request)
            return (prompt.answer,)
        request.prompt = prompt
        self._requests.move(request, RequestStatus.WAITING_FOR_MEMORY)
        return ()

    def start(self, request: Request, now: float) -> None:
        self._preparation.begin(request, now)
        request.stored_blocks = StoredBlocks()
        self._requests.move(request, RequestStatus.PREPARING)
        if not request.jobs.futures:
            self.join(request)

    def join(self, request: Request) -> None:
        """Add a prepared request to the batch. Raises EngineError if its grammar cannot be used."""
        ready = self._preparation.finish(request)
        request.batch_uid = self._batch.add(
            ready.tokens,
            ready.sampler,
            ready.processors,
            ready.caches,
            ready.cached,
            request.generation.shared_prefix_tokens,
        )
        if request.jobs.images:
            self._guard.images_computed(self._model, request.id)
        request.jobs = request.jobs.while_running
        request.pictures = without_inputs(request.pictures)
        self._in_batch[request.batch_uid] = request
        self._requests.move(request, RequestStatus.RUNNING)

    # --- a step ---

    def step(self, clock: Callable[[], float], share_s: float | None = None) -> Iterator[Event]:
        yield from self._prompt_steps.step()
        running = self._running()
        if not running:
            return
        extend_kv_reservations(self._model, (request.generation for request in running), self._guard)
        outcomes = list(self._batch.step())
        now = clock()
        for outcome in outcomes:
            request = self._in_batch[outcome.uid]
            if request.status is RequestStatus.FINISHED:
                continue  # the step has computed more tokens than the answer needed
            generation = request.generation
            if isinstance(outcome, Prefilled):
                yield Prefill(request.id, outcome.done, outcome.total)
                self._cache_later(
                    request, whole=_is_worth_a_snapshot(outcome, generation.shared_prefix_tokens)
                )
                continue
            yield from self._accept(request, outcome, now)

    def _accept(self, request: Request, drawn: Sampled, now: float) -> Sequence[Event]:
        """Return the events that a drawn token causes. If the detokenizer, parser or grammar raises an error,
        the request fails.
        """
        generation = request.generation
        # Not within `confined`, because MLX may raise an error here, which must end the engine.
        logprobs = None if generation.top_logprobs is None else to_numpy(drawn.logprobs)
        try:
            with confined(request.id, "adding a token to its answer"):
                if (grammar := request.grammar) is not None:
                    grammar.raise_fault()
                events = generation.accept(
                    drawn.token, now, self._logprobs(generation, drawn.token, logprobs)
                )
        except EngineError as error:
            self._finish(request)
            return (error.failed(request.id),)
        if generation.done:
            if generation.repeats_itself:
                cause = f"its last {generation.max_repeated_tokens + 1} tokens are equal"
                log_event("answer_cut_short", cause=cause, id=request.id, model=self._model)
            self._finish(request)
        elif generation.completion_tokens % CACHE_EVERY_TOKENS == 0:
            self._cache_later(request, whole=False)
        return events

    def _logprobs(self, generation: Generation, token: int, values: Array | None) -> Logprobs | None:
        if generation.top_logprobs is None or values is None:
            return None
        return logprobs_of(token, values, generation.top_logprobs, self._lm.grammars.token_bytes)

    def cancel(self, request: Request, now: float) -> Done:
        match request.status:
            case RequestStatus.RUNNING:
                self._finish(request)
            case RequestStatus.PREPARING:
                super().cancel(request, now)
            case _:
                return super().cancel(request, now)
        return request.generation.cancel(now)

    def _finish(self, request: Request) -> None:
        self._requests.finish(request)
        self._cache_later(request, whole=True)

    def _running(self) -> list[Request]:
        return self._requests.select(RequestStatus.RUNNING, model=self._model)

    # --- the prompt cache ---

    def cache_pending_kv(self) -> None:
        """Store in the prompt cache the keys and values of the requests that `step` and `cancel` have marked
        for this, and remove the finished requests from the batch.

        Call this only after the events of `step` have been sent. It waits for the next step, which MLX has
        already begun, and would delay the events until then.
        """
        pending, self._pending_kv = self._pending_kv, {}
        if not self._running():
            self._batch.finish_slice()  # no further step would finish it
        for uid, whole in pending.items():
            if self._batch.is_incomplete(uid):
                self._pending_kv[uid] = whole
                continue
            request = self._in_batch[uid]
            self._cache_kv(request, whole=whole)
            if request.status is RequestStatus.FINISHED:
                del self._in_batch[uid]
                self._remove_and_keep_ready(request)

    def _remove_and_keep_ready(self, request: Request) -> None:
        """Remove a finished request from the batch. Its caches are kept ready for a request that continues
        it, unless they share arrays with other requests.
        """
        alone = self._batch.caches_alone(request.batch_uid)
        self._batch.remove(request.batch_uid)
        if alone is not None:
            tokens, caches = alone
            self._cache.keep_ready(cache_keys(tokens, request.pictures), caches)

    def cache_all_kv(self) -> None:
        self._batch.finish_slice()
        self.cache_pending_kv()
        for request in self._running():
            self._cache_kv(request, whole=True)

    def _cache_later(self, request: Request, *, whole: bool) -> None:
        uid = request.batch_uid
        self._pending_kv[uid] = whole or self._pending_kv.get(uid, False)

    def _cache_kv(self, request: Request, *, whole: bool) -> None:
        """Store the request's computed keys and values in the prompt cache.

        A model's state that cannot be cut into the prompt cache's blocks can only be stored whole, as a
        snapshot. This is done only if `whole` is True.
        """
        if computed := self._batch.computed(request.batch_uid):
            keys, caches = cache_keys(computed.tokens, request.pictures), computed.caches
            self._cache.store_computed(request.stored_blocks, keys, caches, computed.row, whole=whole)

    # --- the rest ---

    def warm_up(self) -> None:
        """Have the thread that compiles grammars read the tokenizer's vocabulary, so that the first grammar
        need not wait for it. Return at once. Do nothing if the vocabulary has been read, or if an earlier
        call has done this.
        """
        if not self._lm.grammars.has_vocabulary and not self._warmed_up:
            self._warmed_up = True
            self._workers.compiler.submit(self._lm.grammars.read_vocabulary)

    def kv_bytes(self) -> int:
        return self._batch.kv_bytes

    def feature_bytes(self) -> int:
        return self._lm.vision.tower.features.nbytes if self._lm.vision is not None else 0

    def close(self) -> None:
        super().close()
        self._preparation.close()
        self._cache.close()
        self._in_batch.clear()
        self._pending_kv.clear()
        self._batch.close()


def draft_model_of(language_model: LanguageModel, prefill_step_tokens: int) -> DraftModel | None:
    """Return a `DraftModel` that uses the model's draft model; None if it has none.

    The draft model processes prompts in slices of half as many tokens as a prefill step, because running
    answers wait for each slice.
    """
    if (draft := language_model.draft) is None:
        return None
    return DraftModel(draft, token_rows(draft), prefill_step_tokens // 2)


def _is_worth_a_snapshot(at: Prefilled, shared: int) -> bool:
    """Return True if a snapshot of the model's state after the first `at.done` tokens of a prompt is worth
    taking, because another request may continue from it. This is so at two points: before the prompt's last
    token, for a request with the same prompt, and after the first `shared` tokens, for a prompt that begins
    with the same `shared` tokens and then differs.
    """
    return at.done in (at.total - 1, shared)
