"""Compute the log-probabilities of a prompt's own tokens, in slices, so that other requests can continue
between two slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_server.engine.errors import RequestError
from mlx_server.engine.fast_exponential import logsumexp
from mlx_server.engine.generation.logprobs import MIN_LOGPROB, Array, TokenBytes, logprobs_of, to_numpy
from mlx_server.protocol import Generate, Logprobs, TokenLogprob

STEP_TOKENS = 32
"""How many tokens a slice has. For a vocabulary of 150,000, the logits of so many tokens take 19 MB."""
MAX_REPORTED = 2**18
"""The most log-probabilities in one answer. Each takes some 60 bytes on its way to the gateway."""


class PromptScorer:
    """Computes the log-probabilities (scores) of one prompt's tokens. `done` is a future that is completed
    once every token has a score. Only the MLX thread may use a PromptScorer.

    The model is called with all tokens but the last, so that afterward a generation can continue with the
    keys and values in `caches`. `top` is the number of alternatives to report with each token.
    """

    def __init__(self, model: Any, prompt: Sequence[int], caches: list[Any], top: int) -> None:
        self.done: Future[None] = Future()
        self.caches = caches
        self._model, self._prompt, self._top = model, prompt, top
        self._scores: list[Logprobs] = []

    def compute(self) -> Array:
        """Process the next slice of the prompt. Return, for each token of the slice, the log-probabilities of
        the token that follows it, in an array of shape (tokens, vocabulary).

        The prompt's last token is in no slice, because no token of the prompt follows it. So for a prompt of
        one token, the array is empty.
        """
        start = max(len(self._scores) - 1, 0)
        inputs = list(self._prompt[start : min(start + STEP_TOKENS, len(self._prompt) - 1)])
        if not inputs:
            return np.zeros((0, 0), np.float32)
        logits = self._model(mx.array([inputs]), cache=self.caches)[0].astype(mx.float32)
        return to_numpy(logits - logsumexp(logits))

    def add(self, rows: Array, token_bytes: TokenBytes) -> int:
        """Score further tokens of the prompt with `rows`, the result of `compute` for the next slice: the row
        of each token scores the token that follows it in the prompt. `token_bytes` returns the UTF-8 bytes of
        a token.

        Return how many tokens of the prompt have a score so far. The prompt's first token counts as scored,
        too.
        """
        if not self._scores:
            self._scores.append(Logprobs(_unscored(token_bytes(self._prompt[0]))))
        at = len(self._scores)
        for token, row in zip(self._prompt[at : at + len(rows)], rows, strict=True):
            self._scores.append(logprobs_of(token, row, self._top, token_bytes))
        if len(self._scores) == len(self._prompt) and not self.done.done():
            self.done.set_result(None)
        return len(self._scores)

    @property
    def scores(self) -> tuple[Logprobs, ...]:
        """Return the scores of the tokens. The score of the prompt's first token is meaningless, since no
        token precedes it.
        """
        return tuple(self._scores)


def check_reported(op: Generate, prompt_tokens: int) -> None:
    """Raise RequestError (`invalid_request`) if the log-probabilities that `op` asks for are too many for one
    answer.
    """
    each = 1 + (op.top_logprobs or 0)
    if op.prompt_logprobs and prompt_tokens * each > MAX_REPORTED:
        raise RequestError(
            "invalid_request",
            f"The log-probabilities of {prompt_tokens} tokens with {each - 1} alternatives each are too many "
            f"for one answer; ask for at most {MAX_REPORTED // prompt_tokens - 1} alternatives, or shorten "
            "the prompt.",
        )


def _unscored(token: bytes) -> TokenLogprob:
    return TokenLogprob(token.decode("utf-8", "replace"), tuple(token), MIN_LOGPROB)
