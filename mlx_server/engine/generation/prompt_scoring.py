"""Compute the log-probabilities of a prompt's own tokens, in slices, so that streams can
continue in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.logprobs import MIN_LOGPROB, Array, TokenBytes, logprobs_of, to_numpy
from mlx_server.protocol import Generate, Logprobs, TokenLogprob

STEP_TOKENS = 32
"""The number of tokens whose logits are computed at a time: for a vocabulary of 150,000 they take 19 MB."""
MAX_REPORTED = 2**18
"""Log-probabilities in one answer. They take some 60 bytes each on their way to the gateway."""


class PromptScorer:
    """Scores the tokens of one prompt; `done` is set after the last one. Only the MLX thread may use it.

    The model is called with all tokens but the last one, so that `caches` then hold the keys and values with
    which a generation can continue. `top` is the number of alternatives to report with each token.
    """

    def __init__(self, model: Any, prompt: Sequence[int], caches: list[Any], top: int) -> None:
        self.done: Future[None] = Future()
        self.caches = caches
        self._model, self._prompt, self._top = model, prompt, top
        self._scores: list[Logprobs] = []

    def compute(self) -> Array:
        """Process the next slice of the prompt. Return the log-probabilities after each token, of shape
        (tokens, vocabulary). For a prompt of one token the array is empty.
        """
        start = max(len(self._scores) - 1, 0)
        inputs = list(self._prompt[start : min(start + STEP_TOKENS, len(self._prompt) - 1)])
        if not inputs:
            return np.zeros((0, 0), np.float32)
        logits = self._model(mx.array([inputs]), cache=self.caches)[0].astype(mx.float32)
        return to_numpy(logits - mx.logsumexp(logits, axis=-1, keepdims=True))

    def add(self, rows: Array, token_bytes: TokenBytes) -> int:
        """Score the tokens that follow those of `rows`, and return how many tokens have a score."""
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
        """Return a score for each token. That of the first token is meaningless, since no
        token precedes it.
        """
        return tuple(self._scores)


def check_reported(op: Generate, prompt_tokens: int) -> None:
    """Raise RequestError if the prompt is so long that its log-probabilities do not fit into one answer."""
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
