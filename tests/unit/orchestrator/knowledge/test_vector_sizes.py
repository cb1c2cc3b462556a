"""An embedding model that gives vectors of another size under the same name, as after `ollama pull`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.errors import RequestRejected
from orchestrator.knowledge.search.postgres_ranker import PostgresRanker
from orchestrator.knowledge.search.scope import EVERYTHING
from orchestrator.knowledge.search.search import KnowledgeSearch
from orchestrator.knowledge.search.sqlite_ranker import SqliteRanker
from orchestrator.knowledge.search.vector_index import CurrentIndex
from orchestrator.storage.sqlite import SqliteDatabase
from tests.unit.orchestrator.conftest import DIM, Knowledge

OTHER = DIM // 2
BY_WORDS = (
    f"found by words alone: m gives vectors of {OTHER} dimensions now, and those of the knowledge have {DIM};"
    " the nightly run embeds it again"
)


@pytest.fixture
async def changed(knowledge: Knowledge) -> Knowledge:
    """A knowledge that was embedded and searched before the model's vectors got another size."""
    knowledge.write("pets", dogs="A dog barks.", cats="Cats purr.")
    await update(knowledge)
    await knowledge.search.find("canine", EVERYTHING, 1)
    knowledge.models.dim = OTHER
    return knowledge


async def update(knowledge: Knowledge, full: bool = False) -> list[str]:
    knowledge.now += 1.0
    report = await knowledge.updater.update_all_agents_knowledge(knowledge.folders(), full)
    assert report.stopped == ""
    return report.notes


async def test_search_whose_query_vector_has_another_size_finds_by_words_and_says_so_in_a_note(
    changed: Knowledge,
):
    """`by` was "meaning" and `note` was "", but no passage was found."""
    findings = await changed.search.find("dog", EVERYTHING, 5)
    assert [hit.file for hit in findings.hits] == ["dogs.md"]
    assert (findings.by, findings.note) == (("words",), BY_WORDS)
    with pytest.raises(RequestRejected, match="the nightly run embeds it again"):
        await changed.search.search("dog", None, 5)


async def test_search_while_a_new_file_has_vectors_of_another_size_finds_old_and_new_files_by_words(
    changed: Knowledge,
):
    changed.write("pets", birds="Birds sing.")
    await update(changed)
    findings = await changed.search.find("cats that sing", EVERYTHING, 5)
    assert (findings.by, findings.note) == (("words",), BY_WORDS)
    assert {hit.file for hit in findings.hits} == {"birds.md", "cats.md"}


async def test_full_update_after_a_change_of_the_vector_size_embeds_everything_again(changed: Knowledge):
    """Two nightly runs embedded nothing, and no search found anything by meaning."""
    [note] = await update(changed, full=True)
    assert note.startswith(f"m gives vectors of {OTHER} dimensions now: 3 of another size were deleted")
    assert changed.store.vector_sizes("m") == {OTHER: 2}
    for question in ("canine", "a dog"):  # the vector of the first was stored before the change
        findings = await changed.search.find(question, EVERYTHING, 1)
        assert ([hit.file for hit in findings.hits], findings.note) == (["dogs.md"], "")
        assert "meaning" in findings.by
    assert await update(changed, full=True) == []


async def test_search_for_a_question_stored_with_another_size_embeds_it_again(changed: Knowledge):
    await changed.search.find("purr", EVERYTHING, 1)  # stored with the other size
    changed.models.dim = DIM
    findings = await changed.search.find("purr", EVERYTHING, 1)
    assert (findings.hits[0].file, findings.by, findings.note) == ("cats.md", ("meaning", "words"), "")


async def test_full_update_with_vectors_of_several_sizes_reports_the_different_models(knowledge: Knowledge):
    """Two servers with different models under one name answered in turn."""
    knowledge.write("pets", **{f"f{n}": f"text {n}" for n in range(16)})
    embed = knowledge.models.embed

    async def in_turn(model: str, texts: list[str]) -> list[list[float]]:
        knowledge.models.dim = OTHER if knowledge.models.dim == DIM else DIM
        return await embed(model, texts)

    knowledge.models.embed = in_turn  # type: ignore[method-assign]
    assert await update(knowledge, full=True) == [
        f"m gives vectors of {OTHER} and {DIM} dimensions: its servers have different models under this name;"
        " give them the same one"
    ]


def test_vector_size_counted_meanwhile_by_another_thread_is_the_size_returned():
    """Postgres's ranker read the size before the count of another thread, and its generation after it."""
    store: Any = SimpleNamespace(generation=lambda: 2, vector_sizes=lambda model: {OTHER: 5})
    counts = iter([(1, DIM), (2, OTHER)])

    class BesideAnotherThread(PostgresRanker):
        _counted = property(lambda self: next(counts), lambda self, counted: None)

    ranker = BesideAnotherThread(cast(Any, None), store, "m")
    assert ranker.vector_size() == OTHER


async def test_searches_with_questions_of_two_vector_sizes_build_the_matrix_once(tmp_path: Path):
    """Each change of the size built it again: 20 searches built it 20 times."""
    database = SqliteDatabase(tmp_path / "orchestrator.db")
    database.prepare()
    knowledge = Knowledge(tmp_path, database)
    knowledge.write("pets", dogs="A dog barks.")
    await update(knowledge)
    index = CurrentIndex(database, knowledge.store, "m", lambda: knowledge.now)
    ranker = SqliteRanker(database, index)
    search = KnowledgeSearch(knowledge.store, knowledge.vectors, ranker, knowledge.models, "m")
    first = index.get()
    for n in range(4):
        knowledge.models.dim = OTHER if n % 2 else DIM
        await search.find(f"dog {n}", EVERYTHING, 1)
        assert index.get() is first
