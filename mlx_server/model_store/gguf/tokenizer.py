"""Translate GGUF metadata to `tokenizer.json` and `tokenizer_config.json`. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_server.model_store.gguf import byte_level, sentencepiece_bpe
from mlx_server.model_store.gguf.reader import UnsupportedGguf

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # token types of llama.cpp
_MAX_TOKENS = 4_000_000
_MAX_TOKEN_CHARS = 4096
"""The longest token that is accepted. Real vocabularies have up to about 250 characters, and the time to find
merges grows with the square of the length.
"""
_SPECIAL = (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad"))
"""The special tokens: their names in the GGUF file, and in `tokenizer_config.json`."""


def check_type(metadata: Mapping[str, Any]) -> None:
    """Raise UnsupportedGguf if this type of tokenizer cannot be rebuilt. The tokens themselves are not
    checked.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        byte_level.splitting_of(metadata)
    elif kind != "llama":
        raise UnsupportedGguf(
            f"its tokenizer is {str(kind)[:40]!r}; byte-level BPE ('gpt2') and SentencePiece's BPE ('llama') "
            "can be converted"
        )


def tokenizer_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `tokenizer.json`. Raises UnsupportedGguf if the tokenizer's type is not supported
    or its metadata are invalid.
    """
    check_type(metadata)
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not 0 < len(tokens) <= _MAX_TOKENS:
        raise UnsupportedGguf("its tokenizer has no list of tokens")
    if not all(isinstance(token, str) for token in tokens):
        raise UnsupportedGguf("its tokenizer has tokens that are not text")
    if (longest := max(map(len, tokens))) > _MAX_TOKEN_CHARS:
        raise UnsupportedGguf(
            f"its tokenizer has a token of {longest} characters; {_MAX_TOKEN_CHARS} are allowed"
        )
    added = _added_tokens(metadata)  # also checks the token types, for the calls below
    is_sentencepiece = metadata["tokenizer.ggml.model"] == "llama"
    parts = (sentencepiece_bpe if is_sentencepiece else byte_level).model_parts(metadata)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **parts,
        "post_processor": _post_processor(metadata),
    }


def _added_tokens(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens that are recognized in a text before it is split, as `tokenizer.json` lists them."""
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if not isinstance(types, list) or len(types) != len(tokens):
        raise UnsupportedGguf("its tokenizer has another number of token types than of tokens")
    flags = {"single_word": False, "lstrip": False, "normalized": False}
    return [
        {
            "id": i,
            "content": tokens[i],
            **flags,
            "rstrip": kind == _CONTROL and _takes_space(metadata, i),
            "special": kind != _USER_DEFINED,
        }
        for i, kind in enumerate(types)
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and tokens[i]
    ]


def _takes_space(metadata: Mapping[str, Any], token: int) -> bool:
    """Return True if white space after this control token belongs to the token. It does for all control
    tokens of Phi-3 models with a SentencePiece vocabulary, except the beginning of text and `<|endoftext|>`.
    """
    if metadata.get("general.architecture") != "phi3" or metadata["tokenizer.ggml.model"] != "llama":
        return False
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    return token != bos and metadata["tokenizer.ggml.tokens"][token] != "<|endoftext|>"


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Return True if the tokenizer puts the beginning-of-text token before every text.

    If the metadata leave this open, the result is True for a SentencePiece tokenizer. For any other
    tokenizer, it then depends on the rule by which the tokenizer splits text. Raises UnsupportedGguf if that
    rule is needed but unknown.
    """
    stated = metadata.get("tokenizer.ggml.add_bos_token")
    if stated is None:
        if metadata.get("tokenizer.ggml.model") == "llama":
            return True
        return byte_level.splitting_of(metadata).adds_bos
    return bool(stated)


def _post_processor(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the part of `tokenizer.json` that puts the first and the last token around a text; None if
    neither is added.
    """
    first = _special_token(metadata, "bos") if adds_bos(metadata) else None
    last = _special_token(metadata, "eos") if metadata.get("tokenizer.ggml.add_eos_token") else None
    if first is None and last is None:
        return None

    def around(sequence: str, number: int) -> list[dict[str, Any]]:
        tokens = [first, None, last]
        return [
            {"SpecialToken": {"id": token[1], "type_id": number}}
            if token
            else {"Sequence": {"id": sequence, "type_id": number}}
            for place, token in enumerate(tokens)
            if token or place == 1
        ]

    special = {text: {"id": text, "ids": [i], "tokens": [text]} for i, text in filter(None, (first, last))}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": special,
    }


def _special_token(metadata: Mapping[str, Any], name: str) -> tuple[int, str] | None:
    """Return the id and text of the special token `name`, such as `bos`; None if the metadata name no such
    token. Raises UnsupportedGguf if the token's id is not in the vocabulary.
    """
    token = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if token is None:
        return None
    tokens = metadata["tokenizer.ggml.tokens"]
    if type(token) is not int or not 0 <= token < len(tokens):
        raise UnsupportedGguf(
            f"its tokenizer names {str(token)[:20]} as a special token ({name}), which it has not"
        )
    return token, tokens[token]


def tokenizer_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`, including the chat template. Raises UnsupportedGguf if a
    special token is not in the vocabulary.
    """
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": metadata.get(f"{metadata.get('general.architecture')}.context_length"),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": adds_bos(metadata),
    }
    for name, target in _SPECIAL:
        if (token := _special_token(metadata, name)) is not None:
            config[f"{target}_token"] = token[1]
    if isinstance(template := metadata.get("tokenizer.chat_template"), str) and template:
        config["chat_template"] = template
    return config
