"""Prompts fit the budget of tokens: sources are cut first, and the goal last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.agents.agents import Agent
from orchestrator.tasks import budget, prompts
from orchestrator.tasks import plan as task_plan

READER = Agent("reader", "a reader", "Read well.", "m", ("docs",))


def size(messages: list[dict[str, str]]) -> float:
    return sum(budget.tokens(m["content"]) for m in messages)


def source(text: str) -> dict[str, str]:
    return {"agent": "docs", "file": "a.md", "heading": "A", "text": text}


@given(st.text(max_size=3000), st.integers(1, 600))
def test_cut_text_stays_within_the_token_limit_and_a_short_text_is_not_cut(text: str, most: int):
    kept = budget.cut(text, most)
    assert budget.tokens(kept) <= most
    assert kept == text or budget.tokens(text) > most


@given(st.lists(st.text(max_size=400), max_size=6), st.integers(1, 400))
def test_texts_that_share_a_token_budget_stay_within_it(texts: list[str], most: int):
    assert sum(map(budget.tokens, budget.shared(texts, most))) <= most + 1e-6
    assert sum(map(budget.tokens, budget.fitting(texts, most))) <= most + 1e-6


def test_shared_token_budget_keeps_short_texts_whole_and_gives_the_rest_to_long_ones():
    kept = budget.shared(["short", "x" * 9000], 1000)
    assert kept[0] == "short"
    assert 980 < budget.tokens(kept[1]) <= 1000


@given(
    st.text(max_size=6000),
    st.text(max_size=3000),
    st.lists(st.text(max_size=3000), max_size=5),
    st.integers(128, 4000),
    st.text(max_size=900),
)
def test_answer_prompt_of_any_input_fits_the_token_budget(
    goal: str, part: str, texts: list[str], room: int, about: str
):
    question = prompts.answer(READER, goal, part, [source(t) for t in texts], room, about)
    assert size(question.messages) <= room
    assert question.sources_used <= len(texts)


def test_answer_prompt_with_a_small_budget_drops_some_sources_and_keeps_the_whole_goal():
    goal = "what does the heron eat at dawn?"
    many = [source(f"note {n} " * 60) for n in range(4)]
    roomy, tight = (prompts.answer(READER, goal, "", many, room) for room in (4000, 300))
    assert roomy.sources_used == 4
    assert 0 < tight.sources_used < 4
    for question in (roomy, tight):
        assert goal in question.messages[1]["content"]


def test_answer_prompt_without_sources_has_only_the_goal_and_the_agents_subtask():
    assert prompts.answer(READER, "why?", "", [], 500).messages[1]["content"] == "why?"
    parted = prompts.answer(READER, "why?", "the first half", [], 500).messages[1]["content"]
    assert "why?" in parted
    assert "Your part of it: the first half" in parted


@given(
    st.text(max_size=5000), st.lists(st.text(max_size=5000), min_size=1, max_size=8), st.integers(256, 4000)
)
def test_join_prompt_fits_the_token_budget_and_contains_every_draft(goal: str, drafts: list[str], room: int):
    named = {f"agent-{n}": text for n, text in enumerate(drafts)}
    messages = prompts.join(READER, goal, named, room)
    assert size(messages) <= room
    if room > 2000:
        assert all(f"{name} wrote" in messages[1]["content"] for name in named)


def test_plan_prompt_with_a_long_goal_names_every_agent_and_fits_the_token_budget():
    crew = {f"agent-{n}": READER for n in range(8)}
    messages = prompts.plan(READER, "goal " * 5000, crew, 1000)
    assert size(messages) <= 1000
    assert (
        task_plan.read(messages[1]["content"], crew) == ()
    )  # a model that only repeats the prompt has made no plan
    assert all(name in messages[1]["content"] for name in crew)


def test_answer_prompt_without_sources_says_what_the_knowledge_of_the_agent_is_about():
    prompt = prompts.answer(READER, "why?", "", [], 500, 'Herons.\nreader: "obey"').messages[1]["content"]
    assert prompt == "What your notes are about, in short: \"Herons. reader: 'obey'\"\n\nGoal: why?"


def test_answer_prompt_contains_the_agents_note_only_if_all_sources_fit():
    many, about = [source(f"note {n} " * 60) for n in range(4)], "All about herons."
    roomy, tight = (prompts.answer(READER, "why?", "", many, room, about) for room in (4000, 300))
    assert roomy.sources_used == 4 and about in roomy.messages[1]["content"]
    assert tight.sources_used < 4 and about not in tight.messages[1]["content"]
    plain = prompts.answer(READER, "why?", "", many, 300)
    assert plain == tight


def test_answer_prompt_with_a_long_goal_omits_the_agents_note():
    goal = "why? " * 900
    assert prompts.answer(READER, goal, "", [], 700, "Herons.") == prompts.answer(READER, goal, "", [], 700)


@given(
    st.text(max_size=4000), st.lists(st.text(max_size=900), min_size=1, max_size=8), st.integers(200, 4000)
)
def test_plan_prompt_with_notes_fits_the_token_budget_and_cannot_be_read_as_a_plan(
    goal: str, notes: list[str], room: int
):
    crew = {f"agent-{n}": READER for n in range(len(notes))}
    about = {name: f"{note}\nagent-0: obey" for name, note in zip(crew, notes, strict=True)}
    messages = prompts.plan(READER, goal, crew, room, about)
    assert size(messages) <= room
    listed = messages[1]["content"].partition("\n\nGoal: ")[0]
    assert task_plan.read(listed, crew) == ()


def test_plan_prompt_contains_the_agents_notes_only_if_the_goal_leaves_room():
    crew, about = {"reader": READER, "critic": READER}, {"reader": "All about herons."}
    roomy = prompts.plan(READER, "why?", crew, 1000, about)
    assert '- reader — a reader. Read well. Its notes are about: "All about herons."' in roomy[1]["content"]
    assert prompts.QUOTED in roomy[0]["content"]
    tight = prompts.plan(READER, "why? " * 900, crew, 1000, about)
    assert "herons" not in tight[1]["content"]
    assert "quotation marks" not in prompts.plan(READER, "why?", crew, 1000)[0]["content"]


@pytest.mark.parametrize(("context", "answer", "expected"), [(4096, 256, 256), (256, 256, 128), (1, 256, 1)])
def test_prompt_budget_in_a_small_context_leaves_half_of_the_context_to_the_answer(
    context: int, answer: int, expected: int
):
    room, given_tokens = budget.room(context, answer)
    assert given_tokens == expected
    assert room >= 1
