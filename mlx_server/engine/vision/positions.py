"""The positions of a prompt's tokens, some of which represent images, in models with M-RoPE. Pure.

Each token has three positions: in time, height and width. For a text token, all three equal the number after
the largest position of the tokens before it. For a token of an image, they are the time, row and column of
the token's place in the image, each plus the number after the largest position of the tokens before the
image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlx_server.engine.vision.pictures import PlacedPicture

Positions = npt.NDArray[np.int32]


def mrope_positions(tokens: int, placed: Sequence[PlacedPicture], merge_size: int) -> tuple[Positions, int]:
    """Return the positions of a prompt's first `tokens` tokens, of shape (3, tokens), and the number to add
    to the index of each later token to get its position (0 or negative).

    A token of an image represents `merge_size` by `merge_size` patches.
    """
    parts: list[Positions] = []
    at = following = 0
    for one in placed:
        parts.append(_text(one.start - at, following))
        following += one.start - at
        time, height, width = one.picture.grid or (1, 1, one.picture.image_tokens)
        shape = (time, height // merge_size, width // merge_size)
        parts.append(np.indices(shape, dtype=np.int32).reshape(3, -1) + np.int32(following))
        following += max(shape)
        at = one.end
    parts.append(_text(max(tokens - at, 0), following))
    whole = np.concatenate(parts, axis=1)[:, :tokens]
    return whole, following - at


def _text(tokens: int, start: int) -> Positions:
    line = np.arange(start, start + tokens, dtype=np.int32)
    return np.stack([line, line, line])
