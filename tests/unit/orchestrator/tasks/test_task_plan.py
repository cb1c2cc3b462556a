"""The lead's plan is read from many forms of text and JSON."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tasks.plan import MAX_SUBTASKS, SubTask, everybody, read

CREW = ("lead", "reader", "Critic")


@pytest.mark.parametrize(
    "text",
    [
        "reader: find the facts\ncritic: doubt them",
        "Here is the plan:\n\n1. **reader**: find the facts\n2. **Critic**: doubt them\nGood luck: all!",
        "- `reader` : find the facts\n- CRITIC: doubt them",
        "> Reader: find the facts\n> @Critic: doubt them",
        '```json\n[{"agent": "reader", "task": "find the facts"},'
        ' {"agent": "critic", "part": "doubt them"}]\n```',
        '{"plan": [{"name": "reader", "goal": "find the facts"}, {"name": "Critic", "what": "doubt them"}]}',
        '{"reader": "find the facts", "critic": "doubt them"}',
    ],
)
def test_read_plan_returns_the_same_subtasks_from_every_common_plan_format(text: str):
    assert read(text, CREW) == (SubTask("reader", "find the facts"), SubTask("Critic", "doubt them"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer to: Goal: what is it?",
        "I think the reader should do it.",
        "nobody: this\nanother: that",
        '[{"agent": "nobody"}]',
        "[" * 5000,
        "{not json: at all}",
        ":::::\n" * 500,
        '{"agent": 7}',
        "[1, null, [2]]",
    ],
)
def test_read_plan_of_a_text_without_a_plan_returns_no_subtasks(text: str):
    assert read(text, CREW) == ()


def test_subtasks_of_an_agent_that_a_plan_names_twice_are_joined_into_one():
    assert read("reader: this.\nreader: that.", CREW) == (SubTask("reader", "this. that."),)


def test_agent_that_a_plan_names_without_a_subtask_gets_an_empty_subtask():
    assert read('["reader"]', CREW) == (SubTask("reader", ""),)
    assert read("reader:", CREW) == (SubTask("reader", ""),)


def test_plan_that_asks_every_agent_has_at_most_the_maximum_of_subtasks():
    assert everybody(("a", "b")) == (SubTask("a"), SubTask("b"))
    assert len(everybody(f"a{n}" for n in range(99))) == MAX_SUBTASKS


@given(st.text() | st.lists(st.sampled_from(["reader", ":", "\n", "{", "}", "[", '"', "x"])).map("".join))
def test_task_plan_parsed_from_arbitrary_text_names_only_known_agents_and_each_at_most_once(text: str):
    parts = read(text, CREW)
    assert {part.agent for part in parts} <= set(CREW)
    assert len({part.agent for part in parts}) == len(parts)


@pytest.mark.parametrize("line", ["*" * 2200, "#" * 81 + "*" * 1000 + " " * 1000, ">*" * 40 + "*" * 2000])
def test_read_plan_of_lines_with_thousands_of_bullets_takes_no_time(line: str):
    """One such line took 0.9 s, in which the orchestrator answered nobody."""
    began = time.process_time()
    assert read("\n".join([line, f"{line}: x"] * 20), CREW) == ()
    assert time.process_time() - began < 2
