"""Attention between the tokens of each text, for texts that are padded or packed.

Padded texts are the rows of a batch. Packed texts stand one after the other in a single row, sorted so that
texts of the same length are neighbors. Packing computes no padding, but attention takes one call for each
length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.embeddings.batches import MAX_BATCH_TOKENS
from mlx_server.engine.pausable_call import is_pausable, pause_point

QUERIES_AT_ONCE = 1024
"""How many queries attend in one call. Without a fused kernel, memory holds their scores with all keys."""

Rope = Callable[[mx.array], mx.array]


@dataclass(frozen=True)
class Heads:
    """The attention heads of a layer: their number, their positions, and how far they see.

    `count` is the number of heads, `rope` applies rotary positions (None if the model has none), and
    `distance` is how many tokens a visible key may be away from the query (None if all keys are visible).
    """

    count: int
    rope: Rope | None = None
    distance: int | None = None

    def attend(self, queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
        """Return the attention of `queries` to `keys`; the arrays and the result are (batch, length, hidden).

        `mask` (batch, 1, 1, length) is True for the keys that belong to texts; None if there is no padding.
        """
        batch, length, hidden = queries.shape
        q, k, v = (self._split(x) for x in (queries, keys, values))
        if self.rope is not None:
            q, k = self.rope(q), self.rope(k)
        if self.distance is not None:
            mask = visible_within(mask, length, self.distance)
        scale = (hidden // self.count) ** -0.5
        parts = [
            mx.fast.scaled_dot_product_attention(
                q[:, :, start : start + QUERIES_AT_ONCE], k, v, scale=scale, mask=_rows(mask, start)
            )
            for start in range(0, length, QUERIES_AT_ONCE)
        ]
        out = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=2)
        return out.swapaxes(1, 2).reshape(batch, length, hidden)

    def _split(self, x: mx.array) -> mx.array:
        """Reshape `x` from (batch, length, hidden) to (batch, heads, length, hidden / heads)."""
        return x.reshape(*x.shape[:2], self.count, -1).swapaxes(1, 2)


def _rows(mask: mx.array | None, start: int) -> mx.array | None:
    """Return the rows of `mask` for the `QUERIES_AT_ONCE` queries from `start` on; all of `mask` if its one
    row applies to every query; None if `mask` is None.
    """
    return mask if mask is None or mask.shape[2] == 1 else mask[:, :, start : start + QUERIES_AT_ONCE]


def visible_keys(mask: mx.array | None) -> mx.array | None:
    """Convert a token mask (batch, length) to an attention mask (batch, 1, 1, length). None, which means that
    no text is padded, stays None.
    """
    return None if mask is None else mask[:, None, None, :].astype(mx.bool_)


def visible_within(mask: mx.array | None, length: int, distance: int) -> mx.array | None:
    """Return an attention mask that makes only the keys visible that are at most `distance` tokens from the
    query.

    `mask` is the result of `visible_keys`, and is returned unchanged if no key is farther away than
    `distance`.
    """
    if length <= distance + 1:
        return mask
    positions = mx.arange(length)
    near = (mx.abs(positions[:, None] - positions[None]) <= distance)[None, None]
    return near if mask is None else mask & near


@dataclass(frozen=True)
class Padded:
    """Layout of texts that are the rows of a batch, each padded to the length of the longest. `mask`, the
    result of `visible_keys`, has the shape (batch, 1, 1, length); it is True for the tokens of texts and
    False for padding. It is None if no text is padded.
    """

    mask: mx.array | None

    def attend(self, heads: Heads, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        """Return the attention of `queries` to `keys`, by the `heads` of a layer. A token attends only to
        tokens of its own text. The arrays and the result are (texts, length, hidden).
        """
        return heads.attend(queries, keys, values, self.mask)


@dataclass(frozen=True)
class Packed:
    """Layout of texts that stand one after the other in one row. `groups` has, for each run of texts of the
    same length, in order, the number of texts and their length in tokens.
    """

    groups: tuple[tuple[int, int], ...]

    def attend(self, heads: Heads, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        """Return the attention of `queries` to `keys`, by the `heads` of a layer. A token attends only to
        tokens of its own text. The arrays and the result are (1, tokens, hidden), with all texts one after
        the other.
        """
        is_short = all(length <= QUERIES_AT_ONCE for _, length in self.groups)
        if heads.rope is None and heads.distance is None and is_short and queries.dtype == mx.float32:
            return mx.array(self._attend_by_numpy(heads.count, queries, keys, values))
        each = zip(self.split(queries), self.split(keys), self.split(values), strict=True)
        parts = [heads.attend(q, k, v, None).reshape(1, -1, queries.shape[2]) for q, k, v in each]
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)

    @np.errstate(all="ignore")  # infinite numbers and NaN are refused with the vectors
    def _attend_by_numpy(self, heads: int, *arrays: mx.array) -> np.ndarray:
        """Return what `attend` returns for the `arrays` queries, keys and values, but compute it with numpy,
        whose many small operations take a third of the time of MLX's.
        """
        queries, keys, values = (np.array(x, copy=False)[0] for x in arrays)
        out = np.empty(arrays[0].shape, np.float32)
        width = queries.shape[1] // heads
        start = 0
        for texts, length in self.groups:
            shape, part = (texts, length, heads, width), slice(start, start + texts * length)
            q, k, v = (x[part].reshape(shape).swapaxes(1, 2) for x in (queries, keys, values))
            scores = (q * np.float32(width**-0.5)) @ k.swapaxes(2, 3)
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            out[0, part].reshape(shape)[...] = (scores @ v).swapaxes(1, 2)
            start = part.stop
        return out

    def split(self, x: mx.array) -> Iterator[mx.array]:
        """Yield the part of `x` (1, tokens, hidden) that belongs to each run of texts of the same length,
        with the shape (texts, length, hidden).
        """
        start = 0
        for texts, length in self.groups:
            end = start + texts * length
            yield x[:, start:end].reshape(texts, length, x.shape[2])
            start = end

    def positions(self) -> mx.array:
        """Return the position of each token within its text, counted from 0."""
        return mx.concatenate([mx.tile(mx.arange(length), texts) for texts, length in self.groups])


Layout = Padded | Packed


def last_states(states: Iterator[mx.array]) -> mx.array:
    """Return the last of the hidden `states` that an encoder yields, one array after each layer.

    Within a PausableCall, each layer is computed before the next one begins, and the call can be paused after
    it: a layer of many tokens takes a tenth of a second and more on a small machine. On a GPU, this is only
    done for more tokens than a batch of several texts has.
    """
    for hidden in states:
        if is_pausable() and (not computes_on_gpu() or hidden.shape[0] * hidden.shape[1] > MAX_BATCH_TOKENS):
            mx.eval(hidden)
            pause_point()
    return hidden


class LayeredEncoder(nn.Module):
    """An encoder that yields its hidden states after each layer, so that the caller can pause
    between layers.
    """

    def __call__(self, ids: mx.array, mask: mx.array | None, types: mx.array | None = None) -> mx.array:
        """Return the last hidden states (batch, length, hidden) of padded texts. `padded` describes the
        parameters.
        """
        return last_states(self.padded(ids, mask, types))

    def padded(
        self, ids: mx.array, mask: mx.array | None, types: mx.array | None = None
    ) -> Iterator[mx.array]:
        """Yield the hidden states (batch, length, hidden) of padded texts after each layer. The last states
        yielded are the encoder's result.

        `ids` (batch, length) are token ids. `mask`, of the same shape, is True or 1 for the tokens of texts
        and False or 0 for the padding behind them; None if there is no padding. `types`, of the same shape,
        tell the two texts of a pair apart; None means that all types are 0.
        """
        raise NotImplementedError


class TextEncoder(LayeredEncoder):
    """An encoder whose texts may be padded or packed."""

    def padded(
        self, ids: mx.array, mask: mx.array | None, types: mx.array | None = None
    ) -> Iterator[mx.array]:
        """Yield the hidden states (batch, length, hidden) of padded texts after each layer. The last states
        yielded are the encoder's result.

        `ids` (batch, length) are token ids. `mask`, of the same shape, is True or 1 for the tokens of texts
        and False or 0 for the padding behind them; None if there is no padding. `types`, of the same shape,
        tell the two texts of a pair apart; None means that all types are 0.
        """
        return self.states(ids, mx.arange(ids.shape[1]), types, Padded(visible_keys(mask)))

    def packed(self, ids: mx.array, layout: Packed) -> Iterator[mx.array]:
        """Yield the hidden states (1, tokens, hidden) of packed texts after each layer. `ids` (1, tokens) are
        the texts' token ids. The last states yielded are the encoder's result.
        """
        return self.states(ids, layout.positions(), None, layout)

    def states(
        self, ids: mx.array, positions: mx.array, types: mx.array | None, layout: Layout
    ) -> Iterator[mx.array]:
        """Yield the hidden states of `ids` after each layer. The last states yielded are the encoder's
        result.

        `positions` holds each token's position within its text, and `layout` says which tokens form a text.
        """
        raise NotImplementedError
