"""Encode embedding vectors as base64 text, which is compact, and which OpenAI's API uses too. Pure."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Sequence
from itertools import chain

from mlx_server.protocol.base import ProtocolError


def pack_vectors(rows: Sequence[Sequence[float]]) -> str:
    """Return `rows`, which have equal lengths, as base64 of little-endian float32, one row after the
    other.
    """
    flat = array("f", chain.from_iterable(rows))
    if sys.byteorder == "big":
        flat.byteswap()
    return base64.b64encode(flat.tobytes()).decode("ascii")


def unpack_vectors(vectors: str, dim: int) -> list[list[float]]:
    """Return the rows of `dim` floats that `pack_vectors` encoded.

    Raises ProtocolError if `vectors` is not base64 of float32, or does not divide into rows of `dim`.
    """
    flat = _floats(vectors)
    if dim <= 0 or len(flat) % dim:
        raise ProtocolError(f"embedding.vectors: {len(flat)} floats are not rows of {dim}")
    return [flat[start : start + dim].tolist() for start in range(0, len(flat), dim)]


def are_finite(vectors: str) -> bool:
    """Return whether none of the encoded floats is NaN or infinite. Raises ProtocolError if `vectors` is not
    base64 of float32.
    """
    return math.isfinite(sum(_floats(vectors)))  # any NaN or infinity stays one in a sum


def _floats(vectors: str) -> array[float]:
    flat = array("f")
    try:
        flat.frombytes(base64.b64decode(vectors, validate=True))
    except ValueError as error:
        raise ProtocolError(f"embedding.vectors: not base64 of float32 ({error})") from error
    if sys.byteorder == "big":
        flat.byteswap()
    return flat
