"""A language model at work: its requests, started, stepped, cancelled. Lives in the MLX thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlx_lm.models.cache import KVCache, make_prompt_cache

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.batch import Batch, BatchLimits, Prefilled, Sampled
from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.generation.logprobs import logprobs_of
from mlx_server.engine.generation.output_parser import Marks, OutputParser
from mlx_server.engine.generation.prompts.render import prompt_tokens, tokens_before_last_turn
from mlx_server.engine.generation.sampling import Processor, make_processors, make_sampler
from mlx_server.engine.kv.kv_quantization import KvQuantization
from mlx_server.engine.models.loading import LanguageModel
from mlx_server.engine.prompt_cache.model_cache import Kept, ModelCache
from mlx_server.engine.scheduling.preparing import Prepared, Preparing
from mlx_server.protocol import Done, Embed, Event, Generate, Logprobs, Prefill, Usage

Clock = Callable[[], float]
Admit = Callable[[Generate, int, int], None]
"""Promises memory to a request of so many prompt tokens and so many of answer, or raises."""

PROMPT_END_TOKENS = 16
"""Where a thought begun by the template must stand."""

KEEP_EVERY_TOKENS = 64
"""An answer goes to the cache so often; an engine that dies loses no more than that of it."""


class TextRunner:
    """The requests of one language model, in one batch."""

    def __init__(
        self,
        language_model: LanguageModel,
        limits: BatchLimits,
        helpers: BackgroundWorkers,
        cache: ModelCache,
        admit: Admit,
        kv: KvQuantization | None = None,
    ) -> None:
        self._lm, self._helpers, self._cache, self._admit = language_model, helpers, cache, admit
        self._preparing = Preparing()
        self._ahead = False
        self._batch = Batch(language_model.model, limits.max_running, limits.prefill_step_tokens, kv)
        self._whole_only = any(
            type(cache) is not KVCache for cache in make_prompt_cache(language_model.model)
        )
        self._running: dict[int, Generation] = {}
        self._kept: dict[int, Kept] = {}
        self._to_keep: dict[int, bool] = {}  # uid → whether whole

    def __len__(self) -> int:
        return len(self._running) + len(self._preparing)

    @property
    def can_step(self) -> bool:
        """Whether there is anything to do but to wait for other threads."""
        return bool(self._running) or self._preparing.any_done

    def look_ahead(self) -> None:
        """The engine is idle: what the first grammar would wait for is made now."""
        if not self._lm.grammars.ready and not self._ahead:
            self._ahead = True
            self._helpers.compiler.submit(self._lm.grammars.prepare)

    def start(self, op: Generate | Embed, now: float, load_s: float) -> list[Event]:
        """Take up a request; the events it causes at once. Raises RequestError."""
        if isinstance(op, Embed):
            raise RequestError("not_an_embedding_model", f"Model {op.model} generates text; it cannot embed.")
        prompt = prompt_tokens(op, self._lm.tokenizer, self._lm.context_tokens)
        if op.count_only:
            return [Done(op.id, "stop", Usage(len(prompt), 0))]
        limit = answer_limit(op, len(prompt), self._lm.context_tokens)
        context = prompt if op.kind == "text" else ()
        text = Detokenizer(self._lm.decode, op.stop, context)
        reader, wake_after = self._reader(op, prompt)
        generation = Generation(
            op.id, prompt, limit, self._lm.end_tokens, text, now, load_s, reader, op.top_logprobs
        )
        if done := generation.replay(op.emitted, now):
            return [done]
        self._admit(op, len(prompt), limit)
        if self._whole_only:
            generation.shared = tokens_before_last_turn(op, self._lm.tokenizer, prompt)
        job = self._job(op, wake_after)
        find = self._cache.find([*prompt, *op.emitted])
        prepared = Prepared(
            op,
            generation,
            self._helpers.compiler.submit(job) if job else None,
            self._helpers.reader.submit(self._cache.gathering(find)) if find else None,
            find,
        )
        if prepared.jobs:
            self._preparing.add(prepared)
        else:
            self._take_up(prepared)
        return []

    def _job(self, op: Generate, wake_after: tuple[int, ...]) -> Callable[[], Processor | None] | None:
        """What the compiler has to do before `op` can run."""
        grammars, schema = self._lm.grammars, op.json_schema
        if schema is not None:
            return lambda: grammars.processor(schema, op.emitted, wake_after)
        return grammars.prepare if op.top_logprobs is not None and not grammars.ready else None

    def _take_up(self, prepared: Prepared) -> None:
        """All that it waited for is there. Raises RequestError where its grammar cannot be had."""
        op, generation = prepared.op, prepared.generation
        grammar = prepared.processor.result() if prepared.processor else None
        caches: list[Any] = []
        if prepared.find and prepared.prefix:
            caches, generation.cached = self._cache.take(prepared.find, prepared.prefix.result())
        processors = make_processors(op.sampling) + ([grammar] if grammar else [])
        sampler = make_sampler(op.sampling, len(op.emitted))
        tokens = [*generation.prompt, *op.emitted]
        uid = self._batch.add(tokens, sampler, processors, caches, generation.cached, generation.shared)
        self._running[uid] = generation
        self._kept[uid] = Kept()

    def _reader(self, op: Generate, prompt: Sequence[int]) -> tuple[OutputParser, tuple[int, ...]]:
        """Takes the answer apart; and the tokens that a thought begun in the prompt ends with."""
        marks = self._lm.marks
        if op.kind == "text":
            return OutputParser(Marks()), ()
        if op.think and not marks.think:
            raise RequestError("invalid_request", f"Model {op.model} does not support thinking.")
        end_of_prompt = self._lm.decode(prompt[-PROMPT_END_TOKENS:]).rstrip()
        thinking = marks.think is not None and end_of_prompt.endswith(marks.think[0])
        reader = OutputParser(marks, op.calls, op.tools or (), thinking)
        if not thinking or marks.think is None:
            return reader, ()
        return reader, tuple(self._lm.tokenizer.encode(marks.think[1], add_special_tokens=False))

    def step(self, clock: Clock) -> Iterator[Event]:
        """Take up what the other threads have done, and make one step of the batch."""
        for request in self._preparing.take_done():
            try:
                self._take_up(request)
            except RequestError as error:
                yield error.failed(request.op.id)
        if not self._running:
            return
        outcomes = list(self._batch.step())
        now = clock()
        for outcome in outcomes:
            generation = self._running[outcome.uid]
            if isinstance(outcome, Prefilled):
                yield Prefill(generation.id, outcome.done, outcome.total)
                self._keep_soon(outcome.uid, whole=self._is_worth_keeping(outcome, generation.shared))
                continue
            yield from generation.accept(outcome.token, now, self._chances(generation, outcome))
            if generation.done:
                self._drop(outcome.uid)
            elif generation.count % KEEP_EVERY_TOKENS == 0:
                self._keep_soon(outcome.uid, whole=False)

    def _is_worth_keeping(self, at: Prefilled, shared: int) -> bool:
        """Whether others can go on from the state that a prompt has reached: one of the same prompt (all but
        its last token), or one that begins as it does (all that is shared)."""
        return at.done in (at.total - 1, shared)

    def tidy(self) -> None:
        """What need not be done before the events have left: what was computed goes to the cache.

        That waits for the step that MLX is at already, which nobody's answer should.
        """
        to_keep, self._to_keep = self._to_keep, {}
        for uid, whole in to_keep.items():
            self._keep(uid, whole=whole)
            if uid not in self._running:
                del self._kept[uid]
                self._batch.remove(uid)

    def _keep_soon(self, uid: int, *, whole: bool) -> None:
        self._to_keep[uid] = whole or self._to_keep.get(uid, False)

    def _keep(self, uid: int, *, whole: bool) -> None:
        """What was computed for the request goes to the cache; `whole`: even what cannot be cut."""
        if computed := self._batch.computed(uid):
            tokens, caches = computed.tokens, computed.caches
            self._cache.keep(self._kept[uid], tokens, caches, computed.row, whole=whole)

    def _chances(self, generation: Generation, drawn: Sampled) -> Logprobs | None:
        if generation.top_logprobs is None:
            return None
        token_bytes = self._lm.grammars.token_bytes
        return logprobs_of(drawn.token, drawn.logprobs, generation.top_logprobs, token_bytes)

    def cancel(self, request: str, now: float) -> Done | None:
        """End a request; its place and KV are free at once. None where it is not ours."""
        if waiting := self._preparing.remove(request):
            return waiting.generation.cancel(now)
        for uid, generation in self._running.items():
            if generation.id == request:
                self._drop(uid)
                return generation.cancel(now)
        return None

    def generations(self) -> list[Generation]:
        """Those in the batch."""
        return list(self._running.values())

    def requests(self) -> list[str]:
        """Ids of what is in flight."""
        return [generation.id for generation in self._running.values()] + self._preparing.ids()

    def kv_bytes(self) -> int:
        """What the batch holds in keys and values, with all that it has room for already."""
        computed = (self._batch.computed(uid) for uid in self._running)
        caches = {id(cache): cache for one in computed if one for cache in one.caches}
        return sum(int(cache.nbytes) for cache in caches.values())

    def keep_all(self) -> None:
        """What was computed for those in flight goes to the cache."""
        self.tidy()
        for uid in self._running:
            self._keep(uid, whole=True)

    def close(self) -> None:
        """Drop everything in flight."""
        self._preparing.clear()
        self._running.clear()
        self._kept.clear()
        self._to_keep.clear()
        self._batch.close()

    def _drop(self, uid: int) -> None:
        del self._running[uid]
        self._keep_soon(uid, whole=True)


def answer_limit(op: Generate, prompt_tokens: int, model_context_tokens: int) -> int:
    """How many tokens the answer may have: as asked for, within the context. Raises RequestError."""
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
