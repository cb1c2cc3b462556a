"""Sample tokens with counter-based randomness, so that an answer does not depend on other requests.

The random key of the token at position i is derived from (seed, i), and the noise of each token id does not
depend on its rank. So the same seed draws the same token if a request runs alone, in a batch of eight, or is
resumed after a crash, provided that the logits are equal. The filters are applied in Ollama's order: top_k,
temperature, top_p, min_p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import mlx.core as mx

from mlx_server.engine.fast_exponential import logsumexp
from mlx_server.protocol import Sampling

Sampler = Callable[[mx.array], mx.array]
"""Takes log-probabilities of shape (1, vocabulary), returns token ids of shape (1,)."""

Processor = Callable[[mx.array, mx.array], mx.array]
"""A logits processor of mlx-lm: takes the tokens so far and the logits (1, vocabulary), returns logits."""

_GREEDY_BELOW = 1e-5
MOST_CANDIDATES = 4096
"""How many of the most probable tokens top_p may keep without top_k. Sorting a whole vocabulary for each
drawn token takes 3.7 ms with 49,000 entries, and 22 ms with 262,000; with this limit, it takes a quarter."""
_MASK64 = (1 << 64) - 1


def greedy(logprobs: mx.array) -> mx.array:
    """Return the most probable token of each row.

    All greedy requests use this same function, so that BatchGenerator calls it once for the whole batch.
    """
    return mx.argmax(logprobs, axis=-1)


def make_sampler(sampling: Sampling, position: int) -> Sampler:
    """Return a sampler whose first call draws the token at `position` of the answer."""
    return greedy if sampling.temperature < _GREEDY_BELOW else CounterSampler(sampling, position)


def counter_key(seed: int, position: int) -> int:
    """Return a 64-bit key from (seed, position), by SplitMix64's finalizer, so that similar seeds give
    unrelated keys.
    """
    mixed = (seed * 0x9E3779B97F4A7C15 + position * 0xD1B54A32D192ED03 + 1) & _MASK64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & _MASK64
    return mixed ^ (mixed >> 31)


class CounterSampler:
    """A `Sampler` whose random numbers depend only on the seed and on the token's position in the answer, so
    that a resumed answer continues with the same tokens. The first call draws the token at `position`, and
    each further call the next one.
    """

    def __init__(self, sampling: Sampling, position: int) -> None:
        self._sampling = sampling
        self._position = position

    def __call__(self, logprobs: mx.array) -> mx.array:
        key = mx.random.key(counter_key(self._sampling.seed, self._position))
        self._position += 1
        logits = _filter(logprobs.astype(mx.float32) * (1.0 / self._sampling.temperature), self._sampling)
        # `mx.random.categorical` is not used: it searches the cumulative sum over the vocabulary, in which
        # rounding errors add up. The different rounding of a batch (4e-5) changed 5 of 300 draws.
        return mx.argmax(logits + mx.random.gumbel(logits.shape, key=key), axis=-1)

    def rewind(self, calls: int) -> None:
        """Go back by `calls` tokens. The next calls then draw the tokens at the same positions of the answer
        again, with the same random numbers.
        """
        self._position -= calls


def _filter(logits: mx.array, sampling: Sampling) -> mx.array:
    """Return `logits`, with minus infinity for the tokens that top_k, top_p and min_p exclude."""
    limits = []
    if 0 < sampling.top_k < logits.shape[-1] or 0.0 < sampling.top_p < 1.0:
        limits.append(_smallest_kept(logits, sampling))
    if 0.0 < sampling.min_p <= 1.0:
        limits.append(mx.max(logits, axis=-1, keepdims=True) + math.log(sampling.min_p))
    for limit in limits:
        logits = mx.where(logits < limit, -mx.inf, logits)
    return logits


def _smallest_kept(logits: mx.array, sampling: Sampling) -> mx.array:
    """Return the smallest logit that top_k and top_p keep, of shape (1, 1).

    Only the largest logits are sorted, because sorting the whole vocabulary takes longer than everything
    else. top_p refers to the probability mass of the tokens that top_k keeps.
    """
    has_top_k = 0 < sampling.top_k < logits.shape[-1]
    candidates = sampling.top_k if has_top_k else min(MOST_CANDIDATES, logits.shape[-1])
    largest = mx.topk(logits, candidates, axis=-1) if candidates < logits.shape[-1] else logits
    if not 0.0 < sampling.top_p < 1.0:
        return mx.min(largest, axis=-1, keepdims=True)
    largest = mx.sort(largest, axis=-1)[..., ::-1]
    total = logsumexp(largest if has_top_k else logits)
    mass_above = mx.cumsum(mx.exp(largest - total), axis=-1, inclusive=False)
    count = mx.maximum((mass_above < sampling.top_p).sum(axis=-1, keepdims=True), 1)
    return mx.take_along_axis(largest, count - 1, axis=-1)


def make_processors(sampling: Sampling) -> list[Processor]:
    """Return the logits processors for penalties and bias, without those that would change nothing.

    BatchGenerator is faster without any processors.
    """
    bias: list[Processor] = [LogitBias(sampling.logit_bias)] if sampling.logit_bias else []
    neutral = sampling.repeat_penalty in (0.0, 1.0) and not (
        sampling.presence_penalty or sampling.frequency_penalty
    )
    penalties: list[Processor] = [Penalties(sampling)]
    return bias if neutral or sampling.repeat_last_tokens == 0 else penalties + bias


class Penalties:
    """A logits processor that applies llama.cpp's penalties to tokens that occur in the last
    `repeat_last_tokens` tokens of prompt and answer; in all of them if `repeat_last_tokens` is negative.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        s = self._sampling
        last = min(s.repeat_last_tokens, tokens.shape[0])  # MLX's slices take 32-bit integers only
        window = tokens[-last:] if last > 0 else tokens
        counts = mx.zeros((logits.shape[-1],), dtype=mx.float32).at[window].add(1.0)
        occurs = counts > 0
        if s.repeat_penalty not in (0.0, 1.0):
            weakened = mx.where(logits > 0, logits / s.repeat_penalty, logits * s.repeat_penalty)
            logits = mx.where(occurs, weakened, logits)
        return logits - counts * s.frequency_penalty - occurs * s.presence_penalty


class LogitBias:
    """OpenAI's `logit_bias`, which adds a number to the logits of some tokens. -100 excludes a token in
    practice.
    """

    def __init__(self, biases: Sequence[tuple[int, float]]) -> None:
        self._ids = mx.array([token for token, _ in biases])
        self._biases = mx.array([bias for _, bias in biases])

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        return logits.at[..., self._ids].add(self._biases.astype(logits.dtype))
