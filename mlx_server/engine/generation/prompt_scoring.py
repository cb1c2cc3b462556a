"""Computes the log-probabilities of a prompt's own tokens, some at a time, so that streams can go on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import mlx.core as mx

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.logprobs import MIN_LOGPROB, TokenBytes, logprobs_of, to_numpy
from mlx_server.protocol import Generate, Logprobs, TokenLogprob

STEP_TOKENS = 32
"""The logits of so many tokens are computed at a time: for a vocabulary of 150,000 they take 19 MB."""
MAX_REPORTED = 2**18
"""Log-probabilities in one answer. They take some 60 bytes each on their way to the gateway."""


class PromptScorer:
    """Scores the tokens of one prompt; `done` is set once all are. To be used from the MLX thread only.

    The model is called with all tokens but the last one, so that `caches` then hold the keys and values with
    which a generation can go on. `top` is the number of alternatives to report with each token.
    """

    def __init__(self, model: Any, prompt: Sequence[int], caches: list[Any], top: int) -> None:
        self.done: Future[None] = Future()
        self.caches = caches
        self._model, self._prompt, self._top = model, prompt, top
        self._scores: list[Logprobs] = []

    def step(self, token_bytes: TokenBytes) -> int:
        """Score some more tokens, and return how many tokens the model has read."""
        if not self._scores:
            first = token_bytes(self._prompt[0])
            self._scores.append(Logprobs(_unscored(first)))
        start = len(self._scores) - 1
        inputs = list(self._prompt[start : min(start + STEP_TOKENS, len(self._prompt) - 1)])
        if inputs:
            logits = self._model(mx.array([inputs]), cache=self.caches)[0].astype(mx.float32)
            rows = to_numpy(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
            targets = self._prompt[start + 1 : start + 1 + len(inputs)]
            self._scores += [
                logprobs_of(token, row, self._top, token_bytes)
                for token, row in zip(targets, rows, strict=True)
            ]
        if len(self._scores) == len(self._prompt) and not self.done.done():
            self.done.set_result(None)
        return start + len(inputs)

    @property
    def scores(self) -> tuple[Logprobs, ...]:
        """Return a score for each token; the first one is drawn from nothing, and its number says nothing."""
        return tuple(self._scores)


def check_reported(op: Generate, prompt_tokens: int) -> None:
    """Raise RequestError if the log-probabilities of so long a prompt are too many for one answer."""
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
