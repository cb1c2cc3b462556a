"""Rotary embeddings for models with M-RoPE, whose positions are given for each step. Only the MLX thread may
use them.

mlx-lm's text models number positions consecutively, which is right for texts. While a step of a prompt with
images is computed, `MRope.at` sets the tokens' positions in time, height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_server.engine.vision.positions import Positions


class MRope:
    """Rotates the queries and keys of one text model by the positions of their tokens in time, height and
    width.

    `sections` holds how many frequencies rotate by the position in time, in height and in width. `base` is
    the base of the frequencies. With `interleaved`, the frequencies belong to the three positions in turn;
    otherwise, each position has a contiguous section of the frequencies.
    """

    def __init__(self, sections: Sequence[int], base: float, interleaved: bool) -> None:
        self._base = base
        self._axis = mx.array(_axes(sections, interleaved))
        self._cos_sin: tuple[mx.array, mx.array] | None = None

    def install(self, model: Any) -> None:
        """Make the attention layers of mlx-lm's `model` use this object for their rotary embeddings."""
        for layer in model.layers:
            if "self_attn" in layer:  # not a layer of linear attention, which has no positions
                layer.self_attn.rope = _SwitchedRope(self, layer.self_attn.rope)

    @contextmanager
    def at(self, positions: Positions) -> Iterator[None]:
        """Within the `with` block, which contains one forward pass, use `positions`, of shape (3, tokens)."""
        count = self._axis.shape[0]
        frequencies = self._base ** (-mx.arange(count, dtype=mx.float32) / count)
        own = mx.array(positions.astype(np.float32))[self._axis]  # (frequencies, tokens)
        angles = own.T * frequencies
        angles = mx.concatenate([angles, angles], axis=-1)
        self._cos_sin = mx.cos(angles), mx.sin(angles)
        try:
            yield
        finally:
            self._cos_sin = None

    def rotate(self, x: mx.array, own: Any, offset: Any) -> mx.array:
        """Rotate `x`, of shape (rows, heads, tokens, width), and return the result. Within the `with` block
        of the method `at`, the positions are those that `at` was given. Elsewhere, `own`, the model's
        original rotary embedding, rotates by the positions from `offset` on.
        """
        if self._cos_sin is None:
            return own(x, offset=offset)
        cos, sin = self._cos_sin
        half = cos.shape[-1] // 2  # the rest of a head, if any, is not rotated
        first, second, rest = mx.split(x, [half, 2 * half], axis=-1)
        turned = mx.concatenate([-second, first], axis=-1)
        rotated = (x[..., : 2 * half] * cos + turned * sin).astype(x.dtype)
        return rotated if rest.shape[-1] == 0 else mx.concatenate([rotated, rest], axis=-1)


class _SwitchedRope:
    """Replaces a layer's rotary embedding. It rotates by the positions set by `MRope.at`, if any, or else as
    before.
    """

    def __init__(self, positions: MRope, own: Any) -> None:
        self._positions, self._own = positions, own

    def __call__(self, x: mx.array, offset: Any = 0) -> mx.array:
        return self._positions.rotate(x, self._own, offset)


def _axes(sections: Sequence[int], interleaved: bool) -> list[int]:
    """Return, for each frequency, the axis by whose position it rotates: 0 for time, 1 for height, 2 for
    width. `sections` holds the number of frequencies of each axis. With `interleaved`, the axes take turns
    until height and width have used up their numbers, and all remaining frequencies belong to time.
    Otherwise, each axis has a contiguous section.
    """
    if not interleaved:
        return [axis for axis, count in enumerate(sections) for _ in range(count)]
    axes = [0] * sum(sections)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = [axis] * len(axes[axis : 3 * sections[axis] : 3])
    return axes


def mrope_of(config: Mapping[str, Any], interleaved: bool) -> MRope:
    """Return the MRope for the model with this configuration. `interleaved`, which depends on the model's
    family, says how the rotary frequencies are divided among the positions in time, height and width (see
    `MRope`). Raises KeyError or TypeError if a setting is missing.
    """
    text = config.get("text_config") or config
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or config["rope_scaling"]
    base = text.get("rope_theta") or scaling.get("rope_theta") or config["rope_theta"]
    return MRope(scaling["mrope_section"], float(base), interleaved)
