"""Describe tokenizers of the type `llama`: SentencePiece's BPE, with scores of pieces and a fallback to
bytes. Pure.

SentencePiece merges the two neighbors that form the piece with the highest score. The `tokenizers` package
merges by a list of pairs, so the list has all pairs of pieces that form a piece, ordered by that piece's
score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_server.model_store.gguf.reader import UnsupportedGguf

_SPACE = "▁"
_NORMAL, _USER_DEFINED = 1, 4


def model_parts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of `tokenizer.json` that are particular to SentencePiece's BPE. Raises UnsupportedGguf
    if tokens, scores or token types are missing or inconsistent.
    """
    tokens, scores, types = (
        metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "scores", "token_type")
    )
    if not (isinstance(tokens, list) and isinstance(scores, list) and isinstance(types, list)):
        raise UnsupportedGguf("its tokenizer lacks tokens, scores or token types")
    if not all(isinstance(score, int | float) for score in scores):
        raise UnsupportedGguf("its tokenizer has scores that are not numbers")
    if not len(tokens) == len(scores) == len(types):
        raise UnsupportedGguf("its tokenizer has another number of scores or token types than of tokens")
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if type(unknown) is not int or not 0 <= unknown < len(tokens):
        raise UnsupportedGguf("its tokenizer names an unknown token that it does not have")
    is_gemma = str(metadata.get("general.architecture")).startswith("gemma")  # its files may omit the flag
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", not is_gemma))
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    normalizers = [{"type": "Prepend", "prepend": _SPACE}, replaced] if prefix else [replaced]
    restored = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    decoders: list[dict[str, Any]] = [restored, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": _merges(tokens, scores, types),
        },
    }


def _merges(tokens: list[str], scores: list[float], types: list[int]) -> list[tuple[str, str]]:
    """Return the pairs of pieces that together form another piece. Pairs that form a piece with a higher
    score come first. Only tokens whose type in `types` (GGUF's `token_type`) is normal or user-defined count
    as pieces.

    Pairs that form the same piece are ordered by the ids of their parts, so that frequent parts come first.
    """
    ids = {token: i for i, token in enumerate(tokens) if types[i] in (_NORMAL, _USER_DEFINED)}
    found: list[tuple[float, int, int, int]] = []
    for token, i in ids.items():
        for at in range(1, len(token)):
            left, right = ids.get(token[:at]), ids.get(token[at:])
            if left is not None and right is not None:
                found.append((-scores[i], i, left, right))
    found.sort()
    return [(tokens[left], tokens[right]) for _, _, left, right in found]
