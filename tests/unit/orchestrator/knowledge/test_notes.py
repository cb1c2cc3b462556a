"""Notes on each agent's knowledge: one call to a model for each agent whose knowledge has changed."""

from __future__ import annotations

from orchestrator.agents.agents import Agent
from orchestrator.knowledge.notes import NoteWriter
from tests.unit.orchestrator.conftest import Knowledge

CREW = {"two": Agent("two", "second", "Do it.", "big-model", ("two",))}


async def distilled(knowledge: Knowledge) -> dict[str, list[str]]:
    await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    note_writer = NoteWriter(knowledge.store, knowledge.notes, knowledge.models, "small-model")
    return vars(await note_writer.write_notes(knowledge.folders(), CREW))


async def test_write_notes_asks_each_agents_own_model_once(knowledge: Knowledge):
    knowledge.write("one", a="# Breaker\n\nIt opens after five failures.")
    knowledge.write("two", b="Ships sail.")
    assert await distilled(knowledge) == {"written": ["one", "two"], "unchanged": [], "skipped": []}
    assert [model for model, _ in knowledge.models.chats] == ["small-model", "big-model"]
    assert "a.md > Breaker: It opens after five failures." in knowledge.models.chats[0][1]
    assert knowledge.notes.all()["two"]["text"] == "note 2"
    assert (await distilled(knowledge))["unchanged"] == ["one", "two"]
    assert len(knowledge.models.chats) == 2


async def test_write_notes_rewrites_outdated_notes_and_deletes_notes_of_removed_agents(knowledge: Knowledge):
    knowledge.write("one", a="alpha")
    folder = knowledge.write("two", b="beta")
    await distilled(knowledge)
    knowledge.write("one", a="another")
    (folder / "b.md").unlink()
    folder.rmdir()
    assert (await distilled(knowledge))["written"] == ["one"]
    assert list(knowledge.notes.all()) == ["one"]


async def test_writing_notes_with_no_healthy_backend_keeps_the_old_note_and_reports_it_as_skipped(
    knowledge: Knowledge,
):
    knowledge.write("one", a="alpha")
    await distilled(knowledge)
    knowledge.write("one", a="another")
    await knowledge.updater.update_all_agents_knowledge(knowledge.folders())
    knowledge.models.down = "no LLM backend is healthy"
    assert (await distilled(knowledge))["skipped"] == ["one: no LLM backend is healthy"]
    assert knowledge.notes.all()["one"]["text"] == "note 1"


async def test_write_notes_of_an_agent_with_an_empty_folder_reports_the_agent_as_skipped(
    knowledge: Knowledge,
):
    knowledge.write("one")
    assert (await distilled(knowledge))["skipped"] == ["one: nothing is known yet"]
