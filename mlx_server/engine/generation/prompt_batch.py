"""mlx-lm's PromptProcessingBatch, extended: if only a few tokens of a prompt are left to compute, the step
that samples the first token computes all of them.

mlx-lm computes all tokens of a prompt but the last, and then the last one in a step of its own. A step reads
all weights, however few tokens it computes. So a single step, instead of two, halves the time to the first
token of a prompt whose beginning is cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.generate import PromptProcessingBatch

MOST_TOKENS = 32
"""The most prompt tokens that such a step computes, for all requests that start at the same time. It computes
the scores of the whole vocabulary for each of these tokens, though it uses only those of each request's last
one."""


class PromptBatch(PromptProcessingBatch):
    """A PromptProcessingBatch that can compute several last tokens of a prompt in the step that samples the
    request's first token.

    In mlx-lm, that step begins once a single element of the prompt is left, which usually is one token. The
    function `short_rest` therefore packs the last tokens into one tuple, which counts as one element, and
    `generate` unpacks it.
    """

    model: Any

    def generate(self, tokens: list[list[Any]]) -> Any:
        """Compute the last tokens of the requests' prompts, sample the first token of each answer, and return
        the GenerationBatch that generates the further tokens.

        `tokens` has a list for each request: the last tokens of its prompt, which are still to be computed.
        If `short_rest` has packed these tokens into a tuple, the tuple is the only element of the list.
        """
        rests = [list(part[0]) if isinstance(part[0], tuple) else part for part in tokens]
        width = len(rests[0])
        if width == 1 or any(len(rest) != width for rest in rests) or width * len(rests) > MOST_TOKENS:
            return super().generate(rests)
        for computed, rest in zip(self.tokens, rests, strict=True):
            computed.extend(rest[:-1])
        model, self.model = self.model, _Preceded(self.model, [rest[:-1] for rest in rests])
        try:
            batch = super().generate([rest[-1:] for rest in rests])
        finally:
            self.model = model
        batch.model = model
        return batch


class _Preceded:
    """Wraps a model for a single call, in which it also computes `tokens`. These are further tokens of each
    row, as many for every row, and are put before those that the caller passes. The call returns the logits
    of all.
    """

    def __init__(self, model: Any, tokens: list[list[int]]) -> None:
        self._model, self._tokens = model, mx.array(tokens)

    def __call__(self, tokens: mx.array, cache: Any) -> mx.array:
        logits: mx.array = self._model(mx.concatenate([self._tokens, tokens], axis=1), cache=cache)
        return logits


def short_rest(tokens: Sequence[int]) -> list[list[Any]]:
    """Return `tokens`, the last tokens of a prompt, as a list of segments, the form in which BatchGenerator
    takes a prompt. A segment usually is a list of single tokens. Here, the only segment has one element, a
    tuple of all `tokens`, so that PromptBatch computes them in the step that samples the first token.
    """
    return [[tuple(tokens)]]
