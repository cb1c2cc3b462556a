"""Wrap mlx-lm's BatchGenerator, whose parameters change between releases. No other file uses it directly.

BatchGenerator's own detection of the end of an answer is not used, because it matches stop strings on tokens,
strips them, and goes on generating. So a request runs until `Batch.remove` is called.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
from mlx_lm.generate import BatchGenerator

from mlx_server.engine.blas_threads.threads_for_products import ThreadsForProducts
from mlx_server.engine.fast_exponential import logsumexp
from mlx_server.engine.generation.drafting.draft_batch import DraftBatch
from mlx_server.engine.generation.drafting.draft_counts import DraftCounts
from mlx_server.engine.generation.drafting.draft_model import DraftModel
from mlx_server.engine.generation.drafting.drafter import Drafter
from mlx_server.engine.generation.logprobs import Float32Logits
from mlx_server.engine.generation.prefill_pace import PrefillPace
from mlx_server.engine.generation.prompt_batch import MOST_TOKENS, PromptBatch, short_rest
from mlx_server.engine.generation.prompt_slices import PromptSlices
from mlx_server.engine.generation.sampling import Processor, Sampler
from mlx_server.engine.kv.grouped_kv import GroupedKV, as_groups, share_offsets
from mlx_server.engine.kv.kv_cache import BatchKV, as_request_kv
from mlx_server.engine.kv.request_caches import (
    can_drop_tokens,
    make_request_caches,
    supports_groups,
    supports_padding,
)
from mlx_server.memory_forecast.kv_quantization import KvQuantization

_NO_TOKEN_LIMIT = 1 << 62


def _do_not_raise_wired_limit() -> None:
    """Do nothing, in place of mlx-lm's function that raises Metal's wired limit for each BatchGenerator.

    While the limit is raised, concurrency and cache eviction panic the kernel (ml-explore/mlx 3186: in 3 of 3
    runs; without raising it, never in 4.2 h). Because this returns None, BatchGenerator.close does not reset
    the limit either.
    """


# Imported by name, because the attribute `mlx_lm.generate` is the function of that name, not the module.
_generate: Any = importlib.import_module("mlx_lm.generate")
_generate.maybe_set_recommended_wired_limit = _do_not_raise_wired_limit
# The module's own `mx`, with a faster function for the log-probabilities of each step.
_generate.mx = SimpleNamespace(**{**vars(mx), "logsumexp": logsumexp})


@dataclass(frozen=True)
class Prefilled:
    """Progress of request `uid`: the KV cache holds the first `done` of the prompt's `total` tokens."""

    uid: int
    done: int
    total: int


@dataclass(frozen=True)
class Sampled:
    """The next token of request `uid`. `logprobs` is an MLX array of shape (vocabulary,)."""

    uid: int
    token: int
    logprobs: Any


@dataclass(frozen=True)
class ComputedKv:
    """The keys and values of one request's `tokens`, which are in row `row` of the batched `caches`."""

    tokens: Sequence[int]
    caches: Sequence[Any]
    row: int


@dataclass(frozen=True)
class _Prompt:
    """A request's prompt: its number of tokens, and the number of its first tokens whose keys and values
    `Batch.add` was given (`cached`).
    """

    cached: int
    tokens: int


@dataclass(frozen=True)
class BatchLimits:
    """The limits of a batch: how many requests run together, and how many prompt tokens a step may process.

    The longer a step takes, the longer the other requests wait for their next token. With `drafting`, a step
    may also verify drafted tokens.
    """

    max_running: int
    prefill_step_tokens: int
    drafting: bool = False


class Batch:
    """Runs the requests of one model together. Only the MLX thread may use a batch.

    With `kv`, keys and values are quantized from the first token on. With `drafting`, the next tokens of an
    answer are drafted from its text or, where the text suggests none, by `draft_model`. The drafted tokens
    are counted in `draft_counts`, which several batches may share.
    """

    def __init__(
        self,
        model: Any,
        max_running: int,
        prefill_step_tokens: int,
        kv: KvQuantization | None = None,
        *,
        drafting: bool = False,
        draft_counts: DraftCounts | None = None,
        draft_model: DraftModel | None = None,
    ) -> None:
        self._model, self._kv = model, kv
        self.draft_counts = draft_counts or DraftCounts()
        computed: Any = Float32Logits(model)
        self._generator = BatchGenerator(
            computed,
            max_tokens=_NO_TOKEN_LIMIT,
            completion_batch_size=max_running,
            prefill_batch_size=min(8, max_running) if supports_padding(model) else 1,
            prefill_step_size=prefill_step_tokens,
        )
        self._generator._prompt_batch = PromptBatch.empty(computed, self._generator.sampler)
        # Of caches that cannot drop tokens, the prompt cache stores the state before the prompt's last token,
        # which exists only if that token is computed alone.
        self._most_rest_tokens = MOST_TOKENS if can_drop_tokens(model) else 1
        self._threads = ThreadsForProducts()
        self._pace = PrefillPace(prefill_step_tokens)
        self._slices = PromptSlices(self._generator, self._pace, self._threads)
        self._last_was_plain = self._last_had_slice = False
        self._drafts: DraftBatch | None = None
        if drafting:
            sampler = self._generator.sampler
            self._drafts = DraftBatch.over(computed, sampler, self.draft_counts, self._threads, draft_model)
            self._generator._generation_batch = self._drafts
        self._prompts: dict[int, _Prompt] = {}  # by uid
        self._returned_early: set[int] = set()  # uids whose first token `step` has returned before mlx-lm

    def __len__(self) -> int:
        return len(self._prompts)

    def add(
        self,
        tokens: Sequence[int],
        sampler: Sampler,
        processors: Sequence[Processor],
        caches: Sequence[Any] = (),
        cached: int = 0,
        pause_at: int = 0,
    ) -> int:
        """Queue a request for the prompt `tokens`, and return its uid.

        `caches` hold the keys and values of the prompt's first `cached` tokens; at least one token must be
        left to compute. If `pause_at` is greater than `cached`, a step ends after the prompt's first
        `pause_at` tokens, so that the caller can store the keys and values of exactly these tokens.
        """
        rest, pause = list(tokens[cached:]), max(pause_at - cached, 0)
        own = (
            [as_request_kv(each) for each in caches] if cached else make_request_caches(self._model, self._kv)
        )
        (uid,) = self._generator.insert_segments(
            [[part for part in (rest[:pause], rest[pause:]) if part]],
            caches=[own],
            all_tokens=[list(tokens[:cached])],
            samplers=[sampler],
            logits_processors=[list(processors)],
        )
        if not pause and 1 < len(rest) <= self._most_rest_tokens:
            self._generator._unprocessed_sequences[-1][1][:] = short_rest(rest)
        self._prompts[uid] = _Prompt(cached, len(tokens))
        if self._drafts is not None:
            self._drafts.drafters[uid] = Drafter()
        return uid

    def computed(self, uid: int) -> ComputedKv | None:
        """Return the keys and values of a request; None before its first step, or while they are
        incomplete.
        """
        if self.is_incomplete(uid):
            return None
        for batch in (self._generator._generation_batch, self._generator._prompt_batch):
            if uid in batch.uids:
                row = batch.uids.index(uid)
                return _computed(batch.tokens[row], batch.prompt_cache, row)
        return None

    def caches_alone(self, uid: int) -> tuple[Sequence[int], list[Any]] | None:
        """Return the computed tokens of request `uid`, and the caches with their keys and values, without
        copying them. Return None if the keys and values are incomplete or not computed yet, if the request
        shares arrays with other requests, or if its caches hold more than plain keys and values of these
        tokens.

        The caller must remove the request from the batch before it uses the caches.
        """
        computed = self.computed(uid)
        if computed is None or not all(
            isinstance(cache, BatchKV) and cache.is_alone and cache.size() == len(computed.tokens)
            for cache in computed.caches
        ):
            return None
        alone = [cache.as_request() for cache in computed.caches]
        mx.eval([cache.state for cache in alone])
        return computed.tokens, alone

    @property
    def kv_bytes(self) -> int:
        """Return how many bytes the keys and values of all requests that are being processed take, in the
        model's caches and in the draft model's. The room that the caches have allocated for further tokens
        counts, too.
        """
        batches = (self._generator._generation_batch, self._generator._prompt_batch)
        caches = [*(cache for batch in batches for cache in batch.prompt_cache), *self._slices.caches]
        model = self._drafts.draft_model if self._drafts is not None else None
        return sum(int(cache.nbytes) for cache in caches) + (model.nbytes if model is not None else 0)

    def is_incomplete(self, uid: int) -> bool:
        """Return True while a slice of this request's prompt has been processed only in part. The request's
        keys and values cannot be used during that time.
        """
        return self._slices.has(uid)

    def finish_slice(self) -> None:
        """If a slice of prompts is paused, process the rest of it. A slice is the next tokens of one or more
        prompts, which are processed together. While answers run, `step` may pause it and continue it in the
        next step. The progress made here is not reported as an event.
        """
        self._slices.finish()

    def remove(self, uid: int) -> None:
        """End request `uid`, and free its keys and values. If its prompt is in a paused slice of prompts (see
        `finish_slice`), first process the rest of that slice, because no request can be taken out of a paused
        slice.
        """
        if self.is_incomplete(uid):
            self.finish_slice()
        self._prompts.pop(uid, None)
        self._returned_early.discard(uid)
        if self._drafts is not None:
            self._drafts.remove(uid)
        self._generator.remove([uid])
        if not self._prompts:
            self._threads.rest()

    def step(self) -> Iterator[Prefilled | Sampled]:
        """Generate the next token of each running answer, or several if drafted ones are accepted. An answer
        runs once its whole prompt has been processed. Unless the batch is full of running answers, also
        process a slice: the next tokens of one or more other prompts. A slice that delays the answers may be
        paused, and the next step continues it. Yield the new tokens, and the progress of the prompts.
        """
        prompts, tokens = self._next()
        for prompt in prompts:
            if (own := self._prompts.get(prompt.uid)) is not None:
                done = own.tokens if prompt.end_of_prompt else own.cached + prompt.progress[0]
                yield Prefilled(prompt.uid, done, own.tokens)
        for answer in tokens:
            if answer.uid in self._returned_early:
                self._returned_early.discard(answer.uid)
            elif answer.uid in self._prompts:  # a removed request's next token was sampled ahead
                yield Sampled(answer.uid, answer.token, answer.logprobs)
        yield from self._first_tokens({prompt.uid for prompt in prompts if prompt.end_of_prompt})

    def _next(self) -> tuple[list[Any], list[Any]]:
        """Make one step of BatchGenerator, and return its responses for prompts and for answers.

        More BLAS threads are used if that is faster, and slices of prompts are kept short enough that running
        answers keep their pace.
        """
        generator = self._generator
        is_paused = self._slices.is_paused
        reads_prompts = is_paused or bool(generator._currently_processing or generator._unprocessed_sequences)
        running = generator._generation_batch
        if reads_prompts and running.prompt_cache and self._supports_groups:  # further requests will join
            running.prompt_cache = as_groups(running.prompt_cache)
        share_offsets(running.prompt_cache)
        if not is_paused:
            share_offsets(generator._prompt_batch.prompt_cache)
        answers, began_s = len(running), time.monotonic()
        if self._drafts is not None:
            # Verifying drafted tokens would lengthen a step that a slice of a prompt has made long already.
            self._drafts.may_guess = not reads_prompts and self._pace.knows_step
        if is_paused or (reads_prompts and 0 < answers < generator.completion_batch_size):
            return self._next_with_slice(began_s)
        self._last_had_slice = False
        if not reads_prompts or answers:
            if self._drafts is None:
                self._threads.begin_step(answers)
            prompts, tokens = generator.next()
            self._record_step(answers, time.monotonic() - began_s)
            return list(prompts), list(tokens)
        self._last_was_plain = False  # the next step waits for the tokens that were computed with the slice
        return self._slices.process_alone()

    @cached_property
    def _supports_groups(self) -> bool:
        return supports_groups(self._model, self._kv)

    def _next_with_slice(self, began_s: float) -> tuple[list[Any], list[Any]]:
        """Compute the next tokens of the running answers, then process the current slice of the prompts until
        the time at which `PrefillPace` has it paused, so that the answers do not wait long for their next
        tokens. If no answer runs, process the slice to its end. Return BatchGenerator's responses for prompts
        and for answers. `began_s` is when the step began, in monotonic seconds.
        """
        answers, until_s, tokens = self._generator._generation_batch, float("inf"), list[Any]()
        if len(answers):
            self._threads.begin_step(len(answers))
            with mx.stream(self._generator.stream):
                tokens = list(answers.next())
                mx.eval(answers._next_tokens)
            # The first step with a slice also waits for the step before it. Later steps with a slice take
            # longer than steps without one, because the slice has emptied the processor's caches. So steps
            # with a slice are recorded only as long as no other step has been.
            if self._last_had_slice and not self._pace.knows_step:
                self._pace.record_step(time.monotonic() - began_s)
            until_s = time.monotonic() + self._pace.until_pause_s
        self._last_had_slice, self._last_was_plain = True, False
        return self._slices.go_on(until_s), tokens

    def _record_step(self, answers: int, seconds: float) -> None:
        """Record how long a step of `answers` answers took, if it was plain (without a slice of prompts and
        without drafts) and the step before it was plain, too.

        MLX computes a plain step in the background, so `seconds` includes the wait for the step before.
        """
        before_was_plain = self._last_was_plain
        self._last_was_plain = self._drafts is None or self._drafts.last_was_plain
        if answers and before_was_plain and self._last_was_plain:
            self._pace.record_step(seconds)
            if self._drafts is not None:
                self._drafts.costs.record_plain(answers, seconds)

    def _first_tokens(self, uids: set[int]) -> Iterator[Sampled]:
        """Yield the first tokens of the requests `uids`, whose prompts were completed in this step.

        mlx-lm has sampled these tokens, but would return them only with the next step, which would double the
        time to the first token of a cached prompt.
        """
        batch = self._generator._generation_batch
        if not uids:
            return
        for uid, token, logprobs in zip(
            batch.uids, batch._next_tokens.tolist(), batch._next_logprobs, strict=True
        ):
            if uid in uids and uid in self._prompts:
                self._returned_early.add(uid)
                yield Sampled(uid, token, logprobs)

    def close(self) -> None:
        """End all requests, and free their keys and values."""
        self._slices.close()
        self._generator.remove(list(self._prompts))
        self._prompts.clear()
        self._returned_early.clear()
        self._generator.close()


def _computed(tokens: Sequence[int], caches: Sequence[Any], row: int) -> ComputedKv:
    """Return the keys and values of the `tokens` in row `row` of a batch's `caches`. If `caches` keep the
    rows in groups, each with its own arrays (`GroupedKV`), the result has the caches of the row's group only,
    and the number of the row in that group.
    """
    if not all(isinstance(cache, GroupedKV) for cache in caches):
        return ComputedKv(tokens, caches, row)
    located = [cache.locate(row) for cache in caches]
    return ComputedKv(tokens, [group for group, _ in located], located[0][1])
