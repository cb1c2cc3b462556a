"""Draft the next tokens of answers with a second, smaller model, which has its own keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mlx.core as mx

from mlx_server.engine.fast_exponential import logsumexp
from mlx_server.engine.generation.drafting.rules import Rewindable
from mlx_server.engine.generation.sampling import Sampler, greedy
from mlx_server.engine.kv.grouped_kv import as_groups
from mlx_server.engine.kv.kv_cache import RequestKV
from mlx_server.engine.kv.request_caches import make_request_caches, supports_groups

MOST_MISSING_TOKENS = 32
"""The draft model may draft for a request if it has yet to process at most this many of the request's tokens.
The number is limited because every row of its batch computes as many tokens as the row that lacks most."""


@dataclass(frozen=True)
class Asked:
    """A request for which `length` tokens are to be drafted.

    The drafted tokens follow its `tokens` and the token `drawn`, which the target model has sampled already.
    `sampler` is the request's own sampler.
    """

    uid: int
    tokens: Sequence[int]
    drawn: int
    length: int
    sampler: Sampler

    def after(self, known: int) -> list[int]:
        """Return the request's tokens after the first `known` ones: the rest of `tokens`, and then the token
        `drawn`. The draft model has the keys and values of the first `known` tokens already.
        """
        return [*self.tokens[known:], self.drawn]


@dataclass
class _Row:
    """A row of the draft model's batch. The caches hold the request's first `known` tokens, and after them
    the drafted tokens `guessed`.
    """

    uid: int
    known: int
    guessed: list[int] = field(default_factory=list)


@dataclass
class _Reading:
    """A request that is not in the draft model's batch yet. Its `caches` hold the keys and values of its
    first `known` tokens.
    """

    caches: list[Any]
    known: int = 0


class DraftModel:
    """Drafts tokens for the requests of a batch, in one batch of the draft model.

    The keys and values of a request are computed from its tokens, in slices of `slice_tokens`. They are never
    stored: after a crash, or if the prompt was in the prompt cache, they are computed again while the answer
    runs without drafts. The model can process only tokens below `token_limit`; None if there is no limit.
    Only the MLX thread may use a DraftModel.
    """

    def __init__(self, model: Any, token_limit: int | None, slice_tokens: int) -> None:
        self._model, self._slice_tokens = model, slice_tokens
        self._token_limit = token_limit  # MLX does not check indices into the embedding
        self._rows: list[_Row] = []
        self._caches: list[Any] = []
        self._reading: dict[int, _Reading] = {}
        self._unreadable: set[int] = set()  # uids of requests with tokens that the draft model does not have

    @property
    def nbytes(self) -> int:
        """Return the bytes that all keys and values take."""
        reading = (cache for one in self._reading.values() for cache in one.caches)
        return sum(int(cache.nbytes) for cache in (*self._caches, *reading))

    @cached_property
    def _supports_groups(self) -> bool:
        return supports_groups(self._model)

    def can_guess(self, uid: int, tokens: int) -> bool:
        """Return True if the draft model can draft for a request with `tokens` tokens, because at most
        `MOST_MISSING_TOKENS` of them have no keys and values yet.
        """
        row = self._row(uid)
        return row is not None and tokens - row.known <= MOST_MISSING_TOKENS

    def remove(self, uid: int) -> None:
        """Remove a request, and free its keys and values."""
        self._reading.pop(uid, None)
        self._unreadable.discard(uid)
        if (row := self._row(uid)) is not None:
            self._drop_row(row)

    # --- processing the text so far ---

    def read_slice(self, texts: Mapping[int, Sequence[int]]) -> bool:
        """Compute the keys and values of the next slice of one request that is not ready for drafting.

        `texts` has the tokens of requests, by uid. Return False if all of these requests are ready, or have
        tokens that the draft model does not know.
        """
        for uid, tokens in texts.items():
            if uid not in self._unreadable and not self.can_guess(uid, len(tokens)):
                self._read_slice(uid, tokens)
                return True
        return False

    def _read_slice(self, uid: int, tokens: Sequence[int]) -> None:
        if (row := self._row(uid)) is not None:
            self._reading[uid] = self._take_out(row)
        one = self._reading.setdefault(uid, _Reading(make_request_caches(self._model)))
        part = list(tokens[one.known : one.known + self._slice_tokens])
        if not self._can_read(part):
            del self._reading[uid]
            self._unreadable.add(uid)
            return
        self._model(mx.array([part]), cache=one.caches)
        mx.eval([cache.state for cache in one.caches])
        one.known += len(part)
        if len(tokens) - one.known <= MOST_MISSING_TOKENS:
            self._join(uid, self._reading.pop(uid))

    def _join(self, uid: int, one: _Reading) -> None:
        batch: list[Any] = [RequestKV.merge([cache]) for cache in one.caches]
        if self._supports_groups:
            batch = as_groups(batch)
        if self._rows:
            for cache, joining in zip(self._caches, batch, strict=True):
                cache.extend(joining)
        else:
            self._caches = batch
        self._rows.append(_Row(uid, one.known))

    def _take_out(self, row: _Row) -> _Reading:
        """Remove a row from the batch, and return the keys and values of its known tokens, without the
        drafted ones.
        """
        index = self._rows.index(row)
        caches = [cache.extract(index) for cache in self._caches]
        for cache in caches:
            cache.trim(len(row.guessed))
        self._drop_row(row)
        return _Reading(caches, row.known)

    def _drop_row(self, row: _Row) -> None:
        kept = [index for index, other in enumerate(self._rows) if other is not row]
        self._rows = [self._rows[index] for index in kept]
        if not kept:
            self._caches = []
            return
        for cache in self._caches:
            cache.filter(kept)
        mx.eval([cache.state for cache in self._caches])  # otherwise the arrays of all rows stay in memory

    def _row(self, uid: int) -> _Row | None:
        return next((row for row in self._rows if row.uid == uid), None)

    def _can_read(self, tokens: Iterable[int]) -> bool:
        return self._token_limit is None or max(tokens, default=0) < self._token_limit

    # --- drafting ---

    def guess(self, asked: Sequence[Asked], vocabulary: int) -> dict[int, list[int]]:
        """Return the drafted tokens of each request in `asked`, by the request's uid. For every such request,
        `can_guess` must be True. The drafts of all requests are computed together.

        Each drafted token is what the request's own sampler draws from the draft model's logits, with the
        random key of the token's position. So if both models find the same tokens likely, both draw the same
        token. `vocabulary` is how many logits the target model has, on which a sampler's noise depends. A
        request with tokens that the draft model does not know is left out of the result.
        """
        by_uid = {one.uid: one for one in asked}
        for row in [row for row in self._rows if row.uid in by_uid]:
            if not self._can_read(by_uid[row.uid].after(row.known)):
                del by_uid[row.uid]
                self._drop_row(row)
                self._unreadable.add(row.uid)
        if not by_uid:
            return {}
        wanted = [by_uid.get(row.uid) for row in self._rows]
        samplers = [one.sampler if one else greedy for one in wanted]
        steps = max(one.length for one in by_uid.values())
        logits = self._read_missing(wanted)
        drawn = [_draw(logits, vocabulary, samplers)]
        while len(drawn) < steps:
            mx.async_eval(drawn[-1])
            logits = self._model(drawn[-1][:, None], cache=self._caches)[:, -1]
            drawn.append(_draw(logits, vocabulary, samplers))
        guesses: Any = mx.stack(drawn, axis=1).tolist()
        for sampler in samplers:
            if isinstance(sampler, Rewindable):
                sampler.rewind(steps)
        self._drop_last([0 if one else steps - 1 for one in wanted])
        found = {}
        for row, one, guessed in zip(self._rows, wanted, guesses, strict=True):
            if one is not None:
                row.guessed = guessed[:-1]  # the last token was drawn, but not fed to the model
                found[row.uid] = guessed[: one.length]
        return found

    def _read_missing(self, wanted: Sequence[Asked | None]) -> mx.array:
        """Process the tokens of the `wanted` requests that the caches do not hold yet.

        Return the logits after the last token of each row, of shape (rows, vocabulary). The logits of a row
        for which `wanted` has None are meaningless.
        """
        missing, wrong = list[list[int]](), list[int]()
        for row, one in zip(self._rows, wanted, strict=True):
            if one is None:
                missing.append([])
                wrong.append(0)
                continue
            after = one.after(row.known)
            right = _common(row.guessed, after[:-1])  # the logits after the last token are needed again
            wrong.append(len(row.guessed) - right)
            missing.append(after[right:])
            row.known, row.guessed = row.known + len(after), []
        self._drop_last(wrong)
        width = max(map(len, missing))
        padded = mx.array([tokens + [0] * (width - len(tokens)) for tokens in missing])
        logits = self._model(padded, cache=self._caches)
        self._drop_last([width - len(tokens) for tokens in missing])
        last = mx.array([max(len(tokens) - 1, 0) for tokens in missing])
        return logits[mx.arange(len(missing)), last]

    def _drop_last(self, tokens: Sequence[int]) -> None:
        if any(tokens):
            for cache in self._caches:
                cache.drop_last(tokens)


def _draw(logits: mx.array, vocabulary: int, samplers: Sequence[Sampler]) -> mx.array:
    """Return the tokens, of shape (rows,), that the samplers draw from `logits`, which has one row for each
    sampler.

    `vocabulary` is how many logits the target model has. Further logits of the draft model are cut off, and
    missing ones count as impossible tokens.
    """
    if (missing := vocabulary - logits.shape[-1]) > 0:
        logits = mx.pad(logits, [(0, 0), (0, missing)], constant_values=-mx.inf)
    logits = logits[:, :vocabulary]
    if all(sampler is greedy for sampler in samplers):
        return greedy(logits)
    logprobs = logits - logsumexp(logits)
    return mx.concatenate([sampler(logprobs[row : row + 1]) for row, sampler in enumerate(samplers)])


def _common(guessed: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how many tokens at the start of `guessed` equal those at the start of `tokens`."""
    pairs = zip(guessed, tokens, strict=False)
    return next(
        (i for i, (guess, token) in enumerate(pairs) if guess != token), min(len(guessed), len(tokens))
    )
