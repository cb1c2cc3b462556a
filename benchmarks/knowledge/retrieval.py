"""Measure recall@5 on this project's own docs: search by meaning, by words, by both, and with a reranker.

    python -m benchmarks.knowledge.retrieval [--reranker MODEL]

Each question in retrieval_questions.yaml has a passage that answers it; recall@5 is the share of questions
whose passage is among the first five chunks. The real gateway and engine compute the embeddings (all-minilm).
MODEL is an installed reranker. An oracle, which knows the answers, ranks the same results, and so shows what
the best reranker could reach.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.knowledge.home import MODEL, KnowledgeHome
from benchmarks.processes.gateway import GatewayProcess
from orchestrator.knowledge.search.keywords import match_of
from orchestrator.knowledge.search.reranking import Reranking
from orchestrator.knowledge.search.scope import EVERYTHING

DOCS = Path(__file__).resolve().parents[2] / "docs"
QUESTIONS = Path(__file__).with_name("retrieval_questions.yaml")
K = 5
ROW = "{:<26} {:>9} {:>15}"
PATIENCE_S = 600.0
"""How many seconds a reranker may take. A user's search waits 5 s, and on a slow machine the benchmark would
measure that limit.
"""
Asked = Mapping[str, Any]
Places = dict[str, list[int | None]]  # by search method: for each question the rank of the answer, from 1


@dataclass(frozen=True)
class Gateway:
    """Embeds and reranks with models behind the gateway. The vectors have unit norm."""

    session: aiohttp.ClientSession
    url: str

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        body = {"model": model, "input": texts}
        async with self.session.post(f"{self.url}/api/embed", json=body, raise_for_status=True) as reply:
            return list((await reply.json())["embeddings"])

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        body = {"model": model, "query": query, "documents": documents, "return_documents": False}
        async with self.session.post(f"{self.url}/v1/rerank", json=body, raise_for_status=True) as reply:
            found = {each["index"]: each["relevance_score"] for each in (await reply.json())["results"]}
            return [found[index] for index in range(len(documents))]


@dataclass(frozen=True)
class Oracle:
    """A reranker that puts the passages with `words`, the words of the right answer, first."""

    words: str

    async def rerank(self, model: str, query: str, documents: list[str]) -> list[float]:
        return [float(self.words in " ".join(text.split())) for text in documents]


async def measure(url: str, home: Path, reranker: str | None) -> bool:
    """Index docs/ and ask all questions. Print the tables of recall, and the questions whose passage the
    combined search, by meaning and words, did not find. Return whether, in each set of questions, the
    combined search has at least the recall of the search by meaning alone and of that by words alone.

    The gateway at `url` computes the embeddings, and the index is stored in the folder `home`. The results of
    the combined search are also ranked by an oracle, which knows the right passage and puts it first, and by
    the model `reranker` unless that is None. Raises SystemExit if docs/ cannot be indexed.
    """
    good, sets = True, read_questions()
    async with aiohttp.ClientSession() as session:
        gateway = Gateway(session, url)
        knowledge = KnowledgeHome(home, gateway)
        report = await knowledge.updater.update_all_agents_knowledge({"docs": DOCS})
        if report.stopped:
            raise SystemExit(report.stopped)
        print(report.sentence())
        for name, questions in sets.items():
            places: Places = {"meaning": [], "words": [], "both": []}
            reranked: dict[str, list[int | None]] = {}
            print(f"{name}, {len(questions)} questions")
            for asked in questions:
                await _ask(knowledge, asked, places)
                reranking = {"an oracle": Reranking(Oracle(asked["has"]), "oracle")}
                if reranker:
                    reranking[reranker] = Reranking(gateway, reranker, PATIENCE_S)
                for ranker, each in reranking.items():
                    findings = await knowledge.search_with(each).find(asked["question"], EVERYTHING, K)
                    assert findings.by[-1] == "reranker", findings.note
                    found = [(hit.file, hit.text) for hit in findings.hits]
                    reranked.setdefault(ranker, []).append(_place(found, asked))
            print(ROW.format("", "recall@5", "first is right"))
            recall = {method: _show(method, found) for method, found in places.items()}
            for ranker, places_of in reranked.items():
                _show(f"both, ranked by {ranker}", places_of)
            good &= recall["both"] >= max(recall.values())
    return good


async def _ask(knowledge: KnowledgeHome, asked: Asked, places: Places) -> None:
    findings = await knowledge.search.find(asked["question"], EVERYTHING, K)
    assert findings.by == ("meaning", "words"), findings.note
    vector = knowledge.vectors.vector(asked["question"], MODEL)
    assert vector
    near = [found for found, _ in knowledge.ranker.by_meaning(vector, EVERYTHING, K)]
    words = knowledge.ranker.by_words(match_of(asked["question"]), EVERYTHING, K)
    for method, ids in (("meaning", near), ("words", words)):
        rows = knowledge.store.chunks(ids)
        places[method].append(_place([(rows[n]["file"], rows[n]["text"]) for n in ids], asked))
    places["both"].append(_place([(hit.file, hit.text) for hit in findings.hits], asked))
    if places["both"][-1] is None:
        alone = {method: places[method][-1] for method in ("meaning", "words")}
        print(f"  missed: {asked['question']} ({asked['file']}; alone: {alone})")


def _place(found: list[tuple[str, str]], asked: Asked) -> int | None:
    for place, (file, text) in enumerate(found, 1):
        if file == asked["file"] and asked["has"] in " ".join(text.split()):
            return place
    return None


def _show(method: str, places: list[int | None]) -> float:
    recall = sum(place is not None for place in places) / len(places)
    first = sum(place == 1 for place in places) / len(places)
    print(ROW.format(method, f"{recall:.0%}", f"{first:.0%}"))
    return recall


def read_questions() -> dict[str, list[Asked]]:
    """Return the questions by the name of their set. Raises SystemExit if the docs no longer contain the
    passage that answers a question.
    """
    sets: dict[str, list[Asked]] = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    for asked in (asked for questions in sets.values() for asked in questions):
        text = " ".join((DOCS / asked["file"]).read_text(encoding="utf-8").split())
        if asked["has"] not in text:
            raise SystemExit(f"{QUESTIONS.name}: {asked['file']} no longer has {asked['has']!r}; correct it.")
    return sets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.knowledge.retrieval")
    parser.add_argument("--reranker", metavar="MODEL", help="an installed model that ranks what both found")
    reranker = parser.parse_args().reranker
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as home, GatewayProcess() as gateway:
        gateway.until_ok()
        sys.exit(not asyncio.run(measure(gateway.url, Path(home), reranker)))


if __name__ == "__main__":
    main()
