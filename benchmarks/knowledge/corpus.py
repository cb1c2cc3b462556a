"""Generate a corpus of a known size, with word frequencies as in a natural language."""

from __future__ import annotations

import random
from pathlib import Path

from orchestrator.knowledge.search.keywords import STOP_WORDS

CHUNKS_A_FILE = 10
WORDS = 20_000


class Corpus:
    """Generates text with word frequencies as in a natural language (Zipf, stop words first). Each paragraph
    is one chunk.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        rarer = ["".join(self._draw.choices(letters, k=self._draw.randint(3, 9))) for _ in range(WORDS)]
        self._words = [*sorted(STOP_WORDS), *rarer][:WORDS]
        self._weights = [1 / (rank + 10) for rank in range(WORDS)]

    def words(self, count: int) -> str:
        return " ".join(self._draw.choices(self._words, self._weights, k=count))

    def write(self, folder: Path, chunks: int) -> int:
        """Write a corpus of `chunks` chunks into the new folder `folder`. Return the number of files."""
        folder.mkdir(parents=True)
        files = chunks // CHUNKS_A_FILE
        for number in range(files):
            parts = [f"## {self.words(3)}\n\n{self.words(100)}" for _ in range(CHUNKS_A_FILE)]
            (folder / f"{number:05}.md").write_text("\n\n".join(parts))
        return files
