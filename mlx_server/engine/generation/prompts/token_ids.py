"""Refuse token ids for which a model has no weights, because MLX would read beyond the embedding's rows.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlx_server.engine.errors import RequestError


def check_client_ids(ids: Iterable[int], token_limit: int) -> None:
    """Raise RequestError if a token id from a client is not within 0…`token_limit` - 1."""
    wrong = next((token for token in ids if not 0 <= token < token_limit), None)
    if wrong is not None:
        raise RequestError(
            "invalid_request",
            f"{wrong} is not a token of this model; its ids go from 0 to {token_limit - 1}.",
        )


def check_tokenizer_ids(ids: Iterable[int], token_rows: int | None, model: str) -> None:
    """Raise RequestError if the tokenizer has made a token id of `token_rows` or more, for which `model` has
    no weights. If `token_rows` is None (unknown), nothing is checked.
    """
    highest = max(ids, default=-1)
    if token_rows is not None and highest >= token_rows:
        raise RequestError(
            "invalid_request",
            f"The tokenizer of {model} makes token {highest} of this text, and the model has weights for "
            f"{token_rows} tokens only: the files of {model} do not belong together.",
        )
