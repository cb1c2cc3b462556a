"""Measure speed and size of the orchestrator's knowledge, without the embedding model.

    python -m benchmarks.knowledge.speed
    VESTAL_DATABASE_URL=postgresql://… python -m benchmarks.knowledge.speed   # an empty one, with pgvector

The corpus is generated, and a stand-in computes the embeddings. Measured are: a search over 20,000 chunks
without the embedding of the query; checking an unchanged corpus again, by date and by content; and the memory
of one process that indexes and searches 50,000 chunks.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.knowledge.corpus import Corpus
from benchmarks.knowledge.home import KnowledgeHome
from orchestrator.knowledge.search.scope import EVERYTHING, Scope

DIM = 384
SEARCHES = 300
SEARCH_P95_MS, FILES_A_S, MOST_MB = 20.0, 2000, 2048 * 0.8  # MOST_MB: the memory guard slows from here
ROW = "{:<58} {:>10} {:>10}"


class HashEmbedder:
    """Embeds a text as a vector of unit norm drawn from its hash, so that the same text has the same
    vector.
    """

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        import numpy as np

        rows = [np.random.default_rng(hash(text) % 2**32).standard_normal(DIM) for text in texts]
        return [(row / np.linalg.norm(row)).tolist() for row in rows]


async def measure(home: Path) -> bool:
    corpus = Corpus(1)
    print(ROW.format("", "measured", "allowed"))
    good = await _speed(home / "small", corpus)
    return await _size(home / "large", corpus) and good


async def _speed(home: Path, corpus: Corpus) -> bool:
    files = corpus.write(home / "docs", 20_000)
    knowledge = KnowledgeHome(home, HashEmbedder())
    folders = {"docs": home / "docs"}
    assert (await knowledge.updater.update_all_agents_knowledge(folders)).embedded == 20_000
    good = True
    for name, full in (("checked again by date, files/s", False), ("and by content, as each night", True)):
        began = time.perf_counter()
        report = await knowledge.updater.update_all_agents_knowledge(folders, full)
        assert (report.files, report.changed) == (files, 0)
        speed = files / (time.perf_counter() - began)
        good &= _row(
            f"unchanged corpus of {files} files: {name}", speed, f">= {FILES_A_S}", speed >= FILES_A_S
        )
    for name, scope in (("everything", EVERYTHING), ("in its scope", Scope(("docs",), "01"))):
        for words in (3, 12):
            p50, p95 = await _search_ms(knowledge, corpus, scope, words)
            title = f"search in 20,000 chunks, {words} words, {name}: p50, p95 ms"
            print(ROW.format(title, f"{p50:.1f}", ""))
            good &= _row("", p95, f"<= {SEARCH_P95_MS:.0f}", p95 <= SEARCH_P95_MS)
    return good


async def _search_ms(
    knowledge: KnowledgeHome, corpus: Corpus, scope: Scope, words: int
) -> tuple[float, float]:
    took = []
    for _ in range(SEARCHES):
        query = corpus.words(words)
        vector = (await HashEmbedder().embed("", [query]))[0]
        knowledge.vectors.keep(
            "all-minilm", [query], [vector]
        )  # stored before, because the embedding is not measured
        began = time.perf_counter()
        found = await knowledge.search.find(query, scope, 5)
        took.append((time.perf_counter() - began) * 1000)
        assert len(found.hits) == 5
    took = sorted(took[5:])  # the first searches load numpy and the vectors
    return statistics.median(took), took[int(len(took) * 0.95)]


async def _size(home: Path, corpus: Corpus) -> bool:
    corpus.write(home / "docs", 50_000)
    knowledge = KnowledgeHome(home, HashEmbedder())
    began = time.perf_counter()
    report = await knowledge.updater.update_all_agents_knowledge({"docs": home / "docs"})
    assert report.embedded == 50_000
    print(ROW.format("50,000 chunks indexed, s", f"{time.perf_counter() - began:.0f}", ""))
    for _ in range(3):
        assert (await knowledge.search.find(corpus.words(6), EVERYTHING, 5)).hits
    if (home / "orchestrator.db").exists():
        disk_mb = (home / "orchestrator.db").stat().st_size / 2**20
        print(ROW.format("their database, MB", f"{disk_mb:.0f}", ""))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    return _row(
        "the process's peak, with all of it searched, MB", peak_mb, f"<= {MOST_MB:.0f}", peak_mb <= MOST_MB
    )


def _row(name: str, value: float, allowed: str, good: bool) -> bool:
    print(ROW.format(name, f"{value:,.1f}" if value < 100 else f"{value:,.0f}", allowed), flush=True)
    return good


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as home:
        sys.exit(not asyncio.run(measure(Path(home))))


if __name__ == "__main__":
    main()
