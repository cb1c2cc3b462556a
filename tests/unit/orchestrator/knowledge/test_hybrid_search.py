"""Search by meaning and by words, together and each alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import BackendUnavailable
from orchestrator.knowledge.search.scope import EVERYTHING, Scope
from orchestrator.knowledge.search.vector_index import IDLE_S, CurrentIndex
from orchestrator.storage.sqlite import SqliteDatabase
from tests.unit.orchestrator.conftest import Knowledge


@pytest.fixture
async def filled(knowledge: Knowledge) -> Knowledge:
    knowledge.write("pets", dogs="# Dogs\n\nA dog barks.", cats="# Cats\n\nCats purr; kv_bits is eight.")
    knowledge.write(
        "fleet", ships="# Ships\n\nAny ship that sails the sea has one dog aboard for every storm."
    )
    report = await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    assert report.sentence() == "3 files, 3 changed, 0 deleted, 3 chunks embedded"
    return knowledge


async def test_knowledge_search_returns_passages_with_file_heading_and_score_and_names_the_methods_it_used(
    filled: Knowledge,
):
    findings = await filled.search.find("dog barks", EVERYTHING, 2)
    best = findings.hits[0]
    assert (best.agent, best.file, best.heading, best.text) == ("pets", "dogs.md", "Dogs", "A dog barks.")
    assert best.score == pytest.approx(1.0)
    assert best.similarity and best.similarity > 0.5
    assert findings.by == ("meaning", "words")
    assert findings.note == ""


async def test_knowledge_search_by_meaning_finds_a_synonym(filled: Knowledge):
    findings = await filled.search.find("canine", EVERYTHING, 1)
    assert findings.hits[0].file == "dogs.md"


async def test_knowledge_search_by_words_finds_another_form_of_the_word(filled: Knowledge):
    filled.models.down = "asleep"
    findings = await filled.search.find("sailing", EVERYTHING, 5)
    assert [hit.file for hit in findings.hits] == ["ships.md"]


async def test_knowledge_search_without_an_embedding_backend_finds_by_words_only_and_says_so_in_a_note(
    filled: Knowledge,
):
    filled.models.down = "no LLM backend is healthy"
    findings = await filled.search.find("dog", EVERYTHING, 5)
    assert {hit.file for hit in findings.hits} == {"dogs.md", "ships.md"}
    assert findings.by == ("words",)
    assert findings.note == "found by words alone: no LLM backend is healthy"
    assert all(hit.similarity is None for hit in findings.hits)
    with pytest.raises(BackendUnavailable):
        await filled.search.search("dog", None, 5)


async def test_knowledge_search_for_a_question_without_words_searches_by_meaning_only(filled: Knowledge):
    findings = await filled.search.find("?!", EVERYTHING, 1)
    assert findings.by == ("meaning",)
    assert len(findings.hits) == 1


@pytest.mark.parametrize("down", ["", "asleep"])
@pytest.mark.parametrize(
    ("scope", "files"),
    [
        (Scope(("fleet",)), {"ships.md"}),
        (Scope(None, "dog"), {"dogs.md"}),
        (Scope(("fleet",), "dog"), set()),
        (Scope(()), set()),
        (Scope(None, "d%"), set()),
    ],
)
async def test_knowledge_search_returns_only_hits_inside_the_scope(
    filled: Knowledge, scope: Scope, files: set[str], down: str
):
    filled.models.down = down
    findings = await filled.search.find("dog", scope, 5)
    assert {hit.file for hit in findings.hits} == files


async def test_knowledge_search_embeds_a_repeated_question_once(filled: Knowledge):
    for _ in range(3):
        await filled.search.find("dog", EVERYTHING, 1)
    assert filled.models.batches.count(["dog"]) == 1


async def test_knowledge_search_omits_deleted_files_before_its_index_is_rebuilt(filled: Knowledge):
    async def sees(question: str) -> set[str]:
        return {hit.file for hit in (await filled.search.find(question, EVERYTHING, 5)).hits}

    filled.now = 1.0
    assert await sees("canine") == {"dogs.md", "cats.md", "ships.md"}
    filled.store.forget_files("pets", ["dogs.md"])
    assert await sees("canine") == {"cats.md", "ships.md"}
    filled.now = 2.0
    assert await sees("canine") == {"cats.md", "ships.md"}


async def test_knowledge_search_without_any_files_returns_no_hits(knowledge: Knowledge):
    assert (await knowledge.search.find("anything", EVERYTHING, 5)).hits == []


async def test_idle_search_index_is_released_and_rebuilt_at_the_next_search(tmp_path: Path):
    """With 50,000 vectors, an idle process would hold 77 MB."""
    database = SqliteDatabase(tmp_path / "orchestrator.db")
    database.prepare()
    knowledge = Knowledge(tmp_path, database)
    knowledge.write("docs", a="alpha", b="beta")
    await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    index = CurrentIndex(database, knowledge.store, "m", lambda: knowledge.now)
    first = index.get()
    knowledge.now += IDLE_S - 1
    index.release_if_idle()
    assert index.get() is first
    knowledge.now += IDLE_S
    index.release_if_idle()
    again = index.get()
    assert again is not first
    assert again.ids.tolist() == first.ids.tolist()


async def test_knowledge_search_with_a_reranker_returns_the_rerankers_order_and_scores(filled: Knowledge):
    plain = await filled.search.find("dog", EVERYTHING, 3)
    findings = await filled.reranked().find("dog", EVERYTHING, 3)
    assert findings.by == ("meaning", "words", "reranker")
    assert [hit.file for hit in findings.hits] == ["dogs.md", "cats.md", "ships.md"]
    assert [hit.relevance for hit in findings.hits] == [-4.0, -6.0, -14.0]
    assert {(hit.file, hit.score) for hit in findings.hits} == {(hit.file, hit.score) for hit in plain.hits}
    assert "Dogs\nA dog barks." in filled.models.ranked[0]
    assert [hit.relevance for hit in plain.hits] == [None] * 3


async def test_knowledge_search_for_one_result_lets_the_reranker_choose_among_several(filled: Knowledge):
    findings = await filled.reranked().find("sailing storm", EVERYTHING, 1)
    assert [hit.file for hit in findings.hits] == ["dogs.md"]
    assert len(filled.models.ranked[0]) == 3


@pytest.mark.parametrize(
    ("cannot_rank", "why"),
    [("hangs", "it did not answer within 0.05 s"), ("no ranker here", "no ranker here")],
)
async def test_knowledge_search_whose_reranker_fails_returns_the_unranked_hits_with_a_note(
    filled: Knowledge, cannot_rank: str, why: str
):
    plain = await filled.search.find("dog", EVERYTHING, 3)
    filled.models.cannot_rank = cannot_rank
    findings = await filled.reranked(wait_s=0.05).find("dog", EVERYTHING, 3)
    assert findings.hits == plain.hits
    assert (findings.by, findings.note) == (("meaning", "words"), f"not ranked by ranker: {why}")
