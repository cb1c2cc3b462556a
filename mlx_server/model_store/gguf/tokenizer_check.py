"""Check a rebuilt tokenizer: it must encode and decode each probe text without a change, with tokens that the
model knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from mlx_server.model_store.gguf.reader import UnsupportedGguf

PROBES = (
    "Hello, world!",
    " a leading space, and  two   three    four",
    "The year 2024 has 366 days; 3.14159 is not 22/7.",
    "I'm sure they've said it's John's, DON'T they?",
    "def f(x):\n\treturn {'a': [x, -1]}  # done\n\n\n",
    "Übergröße, naïve café, œuvre, Ærøskøbing, ¿qué?",
    "Съешь же ещё этих мягких французских булок",
    "我能吞下玻璃而不伤身体。東京は今日も雨です。",
    "안녕하세요 세계. مرحبا بالعالم. שלום עולם.",
    "🙂 👩‍👩‍👧 🇩🇪 \U0001f999",
    "\r\nline\r\n\ttab\u00a0nbsp\u200bzero",
)
"""Texts of many kinds: words, numbers, code, other scripts, and characters that are in no vocabulary."""


def check(folder: Path, vocabulary: int, special: Iterable[tuple[int, str]]) -> None:
    """Raise UnsupportedGguf unless the tokenizer in `folder` can be loaded, each text in PROBES is the same
    after encoding and decoding, and all token ids of these texts are below `vocabulary`, the number of tokens
    that the model knows.

    Each of the `special` tokens is a pair (id, text). UnsupportedGguf is also raised if such a text is not
    encoded as the one token with that id.
    """
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the package raises plain Exception
        raise UnsupportedGguf(f"its tokenizer cannot be rebuilt: {str(error)[:200]}") from error
    for text in PROBES:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if max(ids) >= vocabulary:
            raise UnsupportedGguf(f"its tokenizer has the token {max(ids)}, and the model knows {vocabulary}")
        back = tokenizer.decode(ids, skip_special_tokens=False)
        if back != text:
            raise UnsupportedGguf(f"its tokenizer cannot be rebuilt: {text!r} comes back as {back[:100]!r}")
    for token, text in special:
        if tokenizer.encode(text, add_special_tokens=False).ids != [token]:
            raise UnsupportedGguf(f"its tokenizer cannot be rebuilt: {text[:40]!r} is not found as one token")
