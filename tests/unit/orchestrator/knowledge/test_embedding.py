"""The batches in which texts are embedded, if the backend is slow or a text kills its engine."""

from __future__ import annotations

import pytest

from orchestrator.errors import BatchTimedOut, EngineCrashed, RequestRejected
from orchestrator.knowledge import embedding
from orchestrator.knowledge.embedding import Embedded, EmbeddingRun
from tests.unit.orchestrator.conftest import Knowledge, Models


class WeakModels(Models):
    """Models that refuse over `allowed` texts, embed at most `most` in time, and whose engine dies of each
    text with `deadly`.
    """

    allowed = 1000
    most = 1000
    deadly = "no text has this"

    async def embed(self, model: str, texts: list[str]) -> list[list[float]]:
        vectors = await super().embed(model, texts)
        if len(texts) > self.allowed:
            raise RequestRejected("mlx answers 400: too many texts")
        if len(texts) > self.most:
            raise BatchTimedOut("mlx is alive, but did not answer /api/embed within 180 s.")
        if any(self.deadly in text for text in texts):
            raise EngineCrashed("mlx answers 500: the engine died three times")
        return vectors

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.batches if batch != [embedding.HARMLESS_TEXT]]

    def deadly_batches(self) -> int:
        return sum(any(self.deadly in text for text in batch) for batch in self.batches)


def run(knowledge: Knowledge, models: WeakModels, max_batch: int = 16) -> EmbeddingRun:
    return EmbeddingRun(knowledge.vectors, models, "m", max_batch, lambda: 0.0)


def texts(count: int, first: int = 0) -> list[str]:
    return [f"text {number}" for number in range(first, first + count)]


async def test_embedding_by_a_slow_backend_continues_with_smaller_batches(knowledge: Knowledge):
    """Each update asked for the same 32 texts, timed out after 180 s, and stored nothing."""
    models = WeakModels()
    models.most = 5
    one = run(knowledge, models)
    assert await one.embed(texts(20)) == Embedded(20)
    assert models.sizes() == [16, 8, 4, 4, 4, 4, 4]
    one.begin()  # the next update does not repeat every time-out
    models.batches.clear()
    assert await one.embed(texts(9, first=20)) == Embedded(9)
    assert models.sizes() == [8, 4, 4, 1]


async def test_embedding_of_a_refused_batch_by_a_slow_backend_never_makes_its_batches_larger_again(
    knowledge: Knowledge,
):
    """The second half of a refused batch timed out again, and raised the limit from 2 texts to 4."""
    models = WeakModels()
    models.allowed, models.most = 8, 2
    assert await run(knowledge, models).embed(texts(20)) == Embedded(20)
    assert models.sizes() == [16, 8, 4, *[2] * 10]


async def test_embedding_by_a_backend_that_is_too_slow_for_a_single_text_raises_its_error(
    knowledge: Knowledge,
):
    models = WeakModels()
    models.most = 0
    with pytest.raises(BatchTimedOut):
        await run(knowledge, models).embed(texts(4))
    assert models.sizes() == [4, 2, 1]


async def test_embedding_of_a_text_that_kills_the_engine_costs_few_engines_and_stores_all_other_texts(
    knowledge: Knowledge,
):
    models = WeakModels()
    models.deadly = "text 3"
    done = await run(knowledge, models).embed(texts(8))
    assert (done.count, list(done.refused)) == (7, ["text 3"])
    assert models.deadly_batches() == 2


async def test_embedding_of_texts_that_all_kill_the_engine_gives_them_up_after_a_few_engines(
    knowledge: Knowledge,
):
    models = WeakModels()
    models.deadly = "text"
    done = await run(knowledge, models).embed(texts(64))
    assert (done.count, list(done.refused)) == (0, texts(64))
    batches_after_the_first = 3
    assert models.deadly_batches() == embedding.MAX_CRASHES + 1 + batches_after_the_first


async def test_update_with_passages_that_kill_the_engine_stores_their_file_and_all_others_once(
    knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
):
    """A file with four such passages was never stored: each update killed 15 engines, and ended there."""
    models = WeakModels()
    models.deadly = "fatal"
    monkeypatch.setattr(knowledge.models, "embed", models.embed)
    knowledge.write("a", bad="\n".join(f"# Part {n}\n\nA fatal passage {n}.\n" for n in range(6)))
    knowledge.write("b", good="A dog barks.")
    report = await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    assert (report.stopped, report.changed) == ("", 2)
    assert "a/bad.md: 6 passage(s) found by their words only" in report.notes[0]
    killed = models.deadly_batches()
    assert killed == embedding.MAX_CRASHES + 1
    knowledge.write("b", more="A cat purrs.")
    knowledge.now += 1.0
    report = await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    assert (report.stopped, report.changed) == ("", 1)
    assert models.deadly_batches() == killed


async def test_embedding_ends_if_the_engine_dies_of_a_harmless_text_too_and_blames_no_text(
    knowledge: Knowledge,
):
    models = WeakModels()
    models.deadly = ""
    with pytest.raises(EngineCrashed):
        await run(knowledge, models).embed(texts(64))
    assert len(models.batches) == 2
