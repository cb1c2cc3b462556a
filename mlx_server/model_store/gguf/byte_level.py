"""Describe tokenizers of the type `gpt2`, which are byte-level BPE. Pure.

A GGUF file does not describe how text is split before tokens are merged; it only names the rule
(`tokenizer.ggml.pre`). An unknown name is refused, because a rule that is almost right would produce wrong
tokens without an error. The rules are those of the models' own `tokenizer.json`, compared with llama.cpp's
tests of its vocabularies (`models/ggml-vocab-*.gguf.out`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_server.model_store.gguf.reader import UnsupportedGguf

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
_BYTES_ONLY = {**_BYTE_LEVEL, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}

_USER_DEFINED = 4  # a token type of llama.cpp
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ASCII_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"


def _words(digits: str, letters: str = r"\p{L}") -> str:
    """Return GPT-4's regular expression for splitting text into words of `letters`, numbers that match
    `digits`, punctuation, and spaces.
    """
    other = r"\p{L}\p{N}" if letters == r"\p{L}" else r"\p{L}\p{M}\p{N}"
    run = letters if letters == r"\p{L}" else f"[{letters}]"
    punctuation = rf" ?[^\s{other}]+[\r\n]*"
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{run}+|{digits}|{punctuation}|{_SPACES}"


def _cased_words(digits: str, ending: str = "") -> str:
    """Return GPT-4o's regular expression for splitting text, in which a word ends where a capital follows a
    small letter. `digits` is the pattern of a number. `ending` is the pattern of an ending, such as `'s`,
    that stays with its word.
    """
    start = r"[^\r\n\p{L}\p{N}]?"
    words = rf"{start}{_UPPER}*{_LOWER}+{ending}|{start}{_UPPER}+{_LOWER}*{ending}"
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


def _split(*expressions: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False}
        for each in expressions
    ]


@dataclass(frozen=True)
class Splitting:
    """How a tokenizer splits text before it merges tokens: by `steps`, which are pre-tokenizers of
    `tokenizer.json`.

    With `whole_words`, a word that is itself a token is taken without merging. With `adds_bos`, the
    beginning-of-text token is put before a text unless the GGUF file says otherwise. With `composes`, text is
    normalized to NFC.
    """

    steps: tuple[dict[str, Any], ...]
    whole_words: bool = False
    adds_bos: bool = False
    composes: bool = False


_GPT2 = Splitting((_BYTE_LEVEL,))
_SINGLE_DIGITS = Splitting((_DIGITS, _BYTE_LEVEL))
_THREE_DIGITS = (*_split(_words(r"\p{N}{1,3}")), _BYTES_ONLY)
_LLAMA3 = Splitting(_THREE_DIGITS, whole_words=True, adds_bos=True)
_CL100K = Splitting(_THREE_DIGITS)
_QWEN2 = Splitting((*_split(_words(r"\p{N}")), _BYTES_ONLY), composes=True)
_TEKKEN = Splitting((*_split(_cased_words(r"\p{N}")), _BYTES_ONLY), whole_words=True, adds_bos=True)
_GPT4O = Splitting((*_split(_cased_words(r"\p{N}{1,3}", f"{_CONTRACTIONS}?")), _BYTES_ONLY))
_DEEPSEEK_LLM = Splitting(
    (
        *_split(
            "[\r\n]",
            r"\s?[\p{Lu}\p{Ll}\p{Lt}]+",
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            "[一-龥ࠀ-一가-퟿]+",
        ),
        _DIGITS,
        _BYTES_ONLY,
    )
)
_DEEPSEEK_CODER = Splitting(
    (*_split("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"), _DIGITS, _BYTES_ONLY)
)
_DEEPSEEK_V3 = Splitting(
    (
        *_split(
            r"\p{N}{1,3}",
            "[一-龥぀-ゟ゠-ヿ]+",
            rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+|"
            rf" ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
        ),
        _BYTES_ONLY,
    )
)

SPLITTINGS: Mapping[str, Splitting] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "gigachat", "a.x-4.0", "mellum"), _GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), _SINGLE_DIGITS),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2"), _LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), _CL100K),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "megrez"), _QWEN2),
    "stablelm2": Splitting(_QWEN2.steps),
    "tekken": _TEKKEN,
    **dict.fromkeys(("gpt-4o", "kanana2"), _GPT4O),
    "deepseek-llm": _DEEPSEEK_LLM,
    "deepseek-coder": _DEEPSEEK_CODER,
    "deepseek-v3": _DEEPSEEK_V3,
}
"""Maps the names in `tokenizer.ggml.pre` to the rules for splitting text."""


def splitting_of(metadata: Mapping[str, Any]) -> Splitting:
    """Return the rule for splitting text that the file's metadata names. Raises UnsupportedGguf if the rule
    is unknown or none is named.
    """
    name = metadata.get("tokenizer.ggml.pre", "")
    splitting = SPLITTINGS.get(name) if isinstance(name, str) else None
    if splitting is None:
        named = f"splits text by {str(name)[:40]!r}" if name else "does not say how it splits text"
        raise UnsupportedGguf(f"its tokenizer {named}; known: {', '.join(SPLITTINGS)}")
    return splitting


def model_parts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of `tokenizer.json` that are particular to byte-level BPE. Raises UnsupportedGguf if
    the rule for splitting text is unknown, or the list of merges is missing or invalid.
    """
    splitting = splitting_of(metadata)
    steps = [*splitting.steps]
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(each, str) and " " in each[1:] for each in merges):
        raise UnsupportedGguf("its tokenizer has no list of merges")
    return {
        "normalizer": {"type": "NFC"} if splitting.composes else None,
        "pre_tokenizer": steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps},
        "decoder": _decoder(metadata),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": splitting.whole_words,
            "vocab": {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])},
            "merges": [each.split(" ", 1) for each in merges],
        },
    }


def _decoder(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the decoder of `tokenizer.json`, which replaces each character of a token by the byte that it
    stands for.

    DeepSeek's first vocabularies have plain-text tokens such as `ö`, which would come out as the byte 0xF6.
    Such tokens are first replaced by the characters that stand for their bytes.
    """
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata.get("tokenizer.ggml.token_type") or ()
    texts = [token for token, kind in zip(tokens, types, strict=False) if kind == _USER_DEFINED and token]
    alphabet = _byte_characters()
    known = set(alphabet)
    misread = [text for text in texts if not text.isascii() and known.issuperset(text)]
    if not misread:
        return _DECODER
    replaced = [
        {
            "type": "Replace",
            "pattern": {"String": text},
            "content": "".join(alphabet[byte] for byte in text.encode()),
        }
        for text in misread
    ]
    return {"type": "Sequence", "decoders": [*replaced, _DECODER]}


def _byte_characters() -> list[str]:
    """Return, for each of the 256 bytes, the character that stands for it in tokens: the character with the
    byte's code point if that is printable, else one from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]
