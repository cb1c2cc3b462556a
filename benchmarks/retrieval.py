"""Recall@5 on this project's own docs: by meaning, by words, and by both.

    python -m benchmarks.retrieval

Each question of retrieval_questions.yaml has a passage that answers it; recall@5 is the share of questions
whose passage is among the first five chunks. The embeddings are all-minilm's, by the real gateway and engine.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.gateway_process import GatewayProcess
from benchmarks.knowledge_home import MODEL, KnowledgeHome
from orchestrator.knowledge.fusion import fused
from orchestrator.knowledge.keywords import match_of
from orchestrator.knowledge.scope import EVERYTHING
from orchestrator.llm_client import LlmClient
from orchestrator.llm_health import HealthBoard

DOCS = Path(__file__).parent.parent / "docs"
QUESTIONS = Path(__file__).with_name("retrieval_questions.yaml")
K = 5
DEPTH = 40
WAYS = ("meaning", "words", "both")
ROW = "{:<9} {:>9} {:>15}"


async def measure(url: str, home: Path) -> bool:
    """Prints the table, and what hybrid search missed; whether hybrid is no worse than either alone."""
    async with aiohttp.ClientSession() as session:
        client = LlmClient(session, HealthBoard(session, url, ""), 2)
        knowledge = KnowledgeHome(home, client)
        report = await knowledge.updater.update_all_agents_knowledge({"docs": DOCS})
        if report.stopped:
            raise SystemExit(report.stopped)
        print(f"{report.sentence()}; {len(_questions())} questions")
        ranks: dict[str, list[int | None]] = {way: [] for way in WAYS}
        for asked in _questions():
            vector = (await client.embed(MODEL, [asked["question"]]))[0]
            rankings = _rankings(knowledge, asked["question"], vector)
            for way, ids in rankings.items():
                ranks[way].append(_rank(knowledge, ids, asked))
            if ranks["both"][-1] is None:
                where = {way: ranks[way][-1] for way in ("meaning", "words")}
                print(f"  missed: {asked['question']} ({asked['file']}; alone: {where})")
    return _table(ranks)


def _questions() -> list[dict[str, str]]:
    return list(yaml.safe_load(QUESTIONS.read_text(encoding="utf-8")))


def _rankings(knowledge: KnowledgeHome, question: str, vector: list[float]) -> dict[str, list[int]]:
    near = [found for found, _ in knowledge.index.get(len(vector)).nearest(vector, EVERYTHING, DEPTH)]
    words = knowledge.store.by_words(match_of(question), EVERYTHING, DEPTH)
    both = [found for found, _ in fused([near, words], K)]
    return {"meaning": near[:K], "words": words[:K], "both": both}


def _rank(knowledge: KnowledgeHome, ids: list[int], asked: Mapping[str, Any]) -> int | None:
    """The place of the first chunk that answers, from 1; None where none of them does."""
    rows = knowledge.store.chunks(ids)
    for place, chunk_id in enumerate(ids, 1):
        chunk = rows[chunk_id]
        if chunk["file"] == asked["file"] and asked["has"] in " ".join(chunk["text"].split()):
            return place
    return None


def _check_answers() -> None:
    """Every answer stands in the docs: a question about a sentence that was rewritten would count as missed."""
    for asked in _questions():
        text = " ".join((DOCS / asked["file"]).read_text(encoding="utf-8").split())
        if asked["has"] not in text:
            raise SystemExit(f"{QUESTIONS.name}: {asked['file']} no longer has {asked['has']!r}; correct it.")


def _table(ranks: Mapping[str, list[int | None]]) -> bool:
    print(ROW.format("by", "recall@5", "first is right"))
    recall = {}
    for way, places in ranks.items():
        recall[way] = sum(place is not None for place in places) / len(places)
        first = sum(place == 1 for place in places) / len(places)
        print(ROW.format(way, f"{recall[way]:.0%}", f"{first:.0%}"))
    return recall["both"] >= max(recall["meaning"], recall["words"])


def main() -> None:
    _check_answers()
    with tempfile.TemporaryDirectory(prefix="vestal-bench-") as home, GatewayProcess() as gateway:
        gateway.until_ok()
        sys.exit(not asyncio.run(measure(gateway.url, Path(home))))


if __name__ == "__main__":
    main()
