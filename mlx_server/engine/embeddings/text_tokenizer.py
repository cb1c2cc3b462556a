"""Tokenize the texts for an encoder, with a prompt before each text and special tokens around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from mlx_server.model_store.files import sentence_files


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer, and the `prompt` that is put before each text; "" for no prompt.

    The tokenizer adds `special_tokens` tokens to each text: the last `closing_tokens` of them after the text,
    the others before it. With a prompt, `prompt_tokens` is how many tokens precede the text itself: the
    special tokens before it and the tokens of the prompt. Pooling may leave these tokens out. Without a
    prompt it is 0, because pooling then leaves out no token.
    """

    tokenizer: Tokenizer
    prompt: str
    prompt_tokens: int
    special_tokens: int
    closing_tokens: int

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, with the tokens of this object's `prompt` before it and with the
        special tokens. No text is truncated.
        """
        prompted = [self.prompt + text for text in texts] if self.prompt else list(texts)
        return [encoding.ids for encoding in self.tokenizer.encode_batch(prompted)]

    def truncate(self, ids: list[int], limit: int) -> list[int]:
        """Return `ids` shortened to `limit` tokens at most. The closing special tokens are kept."""
        if len(ids) <= limit:
            return ids
        kept = limit - self.closing_tokens
        return [*ids[:kept], *ids[len(ids) - self.closing_tokens :]]


def read_tokenizer(folder: Path, prompt: str) -> TextTokenizer:
    """Return the tokenizer of the encoder in `folder`, which puts `prompt` before each text. Raises OSError,
    ValueError or a bare Exception of the tokenizers library if the files are missing or invalid.
    """
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()  # the tokenizer.json of all-minilm truncates at 128 tokens
    if sentence_files.lower_cases(folder) and not _lower_cases(tokenizer):
        first = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *first])
    probe = tokenizer.encode("probe")
    special = probe.special_tokens_mask
    closing = special[::-1].index(0) if 0 in special else 0
    prompted = len(tokenizer.encode(prompt).ids) - closing if prompt else 0
    added = tokenizer.num_special_tokens_to_add(False)
    return TextTokenizer(tokenizer, prompt, prompted, added, closing)


def _lower_cases(tokenizer: Tokenizer) -> bool:
    """Return True if the tokenizer's own normalizer makes texts lower case."""
    settings: Any = json.loads(tokenizer.to_str()).get("normalizer")
    each = settings.get("normalizers", [settings]) if isinstance(settings, dict) else []
    return any(one.get("type") == "Lowercase" or one.get("lowercase") for one in each)
