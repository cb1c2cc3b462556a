"""mlx-lm's BatchGenerator, wrapped: the only file that knows it. Its arguments change between releases.

Ending an answer is not left to it: it matches stop strings on tokens, strips them, and goes on generating.
Here a request runs until it is removed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.generate import BatchGenerator
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from mlx_server.engine.generation.sampling import Processor, Sampler
from mlx_server.engine.kv.kv_cache import empty_caches
from mlx_server.engine.kv.kv_quantization import KvQuantization
from mlx_server.engine.kv.quantizing import quantized_caches

_NEVER = 1 << 62


def _leave_wired_limit_alone() -> None:
    """mlx-lm raises Metal's wired limit to the maximum whenever a BatchGenerator is made.

    Concurrency and cache eviction with the limit up panic the kernel (ml-explore/mlx 3186: 3 of 3 runs;
    without raising it, none in 4.2 h). Returning None also keeps BatchGenerator.close from setting it back.
    """


# The module, by its name: `mlx_lm.generate`, the attribute, is the function that the package imports from it.
_generate: Any = importlib.import_module("mlx_lm.generate")
_generate.maybe_set_recommended_wired_limit = _leave_wired_limit_alone


@dataclass(frozen=True)
class Prefilled:
    """`done` of `total` prompt tokens of request `uid` are in the KV cache."""

    uid: int
    done: int
    total: int


@dataclass(frozen=True)
class Sampled:
    """Request `uid` has its next token."""

    uid: int
    token: int
    logprobs: Any  # (vocabulary,), an array of MLX's


@dataclass(frozen=True)
class Computed:
    """What is in KV for one request: `tokens`, at `row` of the batched `caches`."""

    tokens: Sequence[int]
    caches: Sequence[Any]
    row: int


def _can_be_padded(model: Any) -> bool:
    """Whether prompts of different lengths can be processed together.

    Models with a running state must leave out the padding. mlx-lm 0.32.2's mamba and jamba do not: a short
    prompt beside a long one gets another answer, and the cache would keep the wrong state.
    """
    return all(type(cache) in (KVCache, RotatingKVCache) for cache in make_prompt_cache(model))


@dataclass(frozen=True)
class BatchLimits:
    """How many requests run together, and how much prompt is processed in one step (it delays the others)."""

    max_running: int
    prefill_step_tokens: int


class Batch:
    """Requests that run through one model together. Used from the MLX thread only.

    With `kv`, their keys and values are quantized, from the first token on.
    """

    def __init__(
        self, model: Any, max_running: int, prefill_step_tokens: int, kv: KvQuantization | None = None
    ) -> None:
        self._model, self._kv = model, kv
        self._generator = BatchGenerator(
            model,
            max_tokens=_NEVER,
            completion_batch_size=max_running,
            prefill_batch_size=min(8, max_running) if _can_be_padded(model) else 1,
            prefill_step_size=prefill_step_tokens,
        )
        self._cached: dict[int, int] = {}  # of each request: how many of its tokens came with their KV
        self._begun: set[int] = set()  # their first token was given ahead

    def __len__(self) -> int:
        return len(self._cached)

    def add(
        self,
        tokens: Sequence[int],
        sampler: Sampler,
        processors: Sequence[Processor],
        caches: Sequence[Any] = (),
        cached: int = 0,
        pause_at: int = 0,
    ) -> int:
        """Queue a prompt, the first `cached` tokens of which `caches` hold; at least one is left. Its uid.

        A step ends at `pause_at` tokens, if that is within the rest: the state there can be kept.
        """
        rest, pause = list(tokens[cached:]), max(pause_at - cached, 0)
        (uid,) = self._generator.insert_segments(
            [[part for part in (rest[:pause], rest[pause:]) if part]],
            caches=[list(caches) if cached else self._empty()],
            all_tokens=[list(tokens[:cached])],
            samplers=[sampler],
            logits_processors=[list(processors)],
        )
        self._cached[uid] = cached
        return uid

    def _empty(self) -> list[Any]:
        return empty_caches(self._model) if self._kv is None else quantized_caches(self._model, self._kv)

    def computed(self, uid: int) -> Computed | None:
        """What is in KV for the request; None before its first step."""
        for batch in (self._generator._generation_batch, self._generator._prompt_batch):
            if uid in batch.uids:
                row = batch.uids.index(uid)
                return Computed(batch.tokens[row], batch.prompt_cache, row)
        return None

    def remove(self, uid: int) -> None:
        """Give up a request's place and its KV."""
        self._cached.pop(uid, None)
        self._begun.discard(uid)
        self._generator.remove([uid])

    def step(self) -> Iterator[Prefilled | Sampled]:
        """One token for each that generates, and one chunk of prompt for those that do not yet."""
        prompts, tokens = self._generator.next()
        for prompt in prompts:
            if (cached := self._cached.get(prompt.uid)) is not None:
                done, total = prompt.progress
                yield Prefilled(prompt.uid, cached + done, cached + total)
        for answer in tokens:
            if answer.uid in self._begun:
                self._begun.discard(answer.uid)
            elif answer.uid in self._cached:  # a step sampled ahead for one that was removed since
                yield Sampled(answer.uid, answer.token, answer.logprobs)
        yield from self._first_tokens({prompt.uid for prompt in prompts if prompt.end_of_prompt})

    def _first_tokens(self, uids: set[int]) -> Iterator[Sampled]:
        """Of those whose prompt has just ended.

        mlx-lm would give it with the next step: twice the time to the first token of a cached prompt.
        """
        batch = self._generator._generation_batch
        if not uids:
            return
        for uid, token, logprobs in zip(
            batch.uids, batch._next_tokens.tolist(), batch._next_logprobs, strict=True
        ):
            if uid in uids and uid in self._cached:
                self._begun.add(uid)
                yield Sampled(uid, token, logprobs)

    def close(self) -> None:
        """Drop all requests and their KV."""
        self._generator.remove(list(self._cached))
        self._cached.clear()
        self._begun.clear()
        self._generator.close()
