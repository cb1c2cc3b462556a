"""The parts of a search: words of a question, fused rankings, scopes; and the digest of a folder."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.knowledge.digest import digest
from orchestrator.knowledge.search.fusion import Ranking, fused
from orchestrator.knowledge.search.keywords import MAX_WORDS, contains_identifier, match_of
from orchestrator.knowledge.search.scope import Scope


def test_rank_fusion_places_a_hit_that_is_second_in_both_rankings_above_one_that_is_first_in_only_one():
    best = fused([Ranking([1, 2, 3]), Ranking([4, 2, 5])], limit=3)
    assert [found for found, _ in best] == [2, 1, 4]


def test_fused_rankings_with_different_first_places_prefer_the_heavier_ranking():
    best = fused([Ranking([1], 0.6), Ranking([2])], limit=2)
    assert [found for found, _ in best] == [2, 1]


def test_fused_rankings_give_a_hit_that_is_first_in_every_ranking_the_score_one():
    assert fused([Ranking([7]), Ranking([7, 8], 0.5)], limit=1) == [(7, pytest.approx(1.0))]
    assert fused([Ranking([]), Ranking([])], limit=5) == []


@given(st.lists(st.lists(st.integers(0, 30), unique=True), min_size=1, max_size=3), st.integers(1, 10))
def test_fused_rankings_have_unique_hits_sorted_by_scores_of_at_most_one(
    rankings: list[list[int]], most: int
):
    best = fused([Ranking(ids) for ids in rankings], most)
    scores = [score for _, score in best]
    assert len({found for found, _ in best}) == len(best) <= most
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1.000001 for score in scores)


def test_full_text_query_omits_stop_words_unless_there_are_only_stop_words():
    assert match_of("When does the breaker open?") == '"breaker" OR "open"'
    assert match_of("who are you") == '"who" OR "are" OR "you"'
    assert match_of("?! ...") == ""
    assert match_of(" ".join(f"w{n}" for n in range(100))).count('"') == 2 * MAX_WORDS


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("what is kv_bits for", True),
        ("mlx.bind", True),
        ("what does --json do", True),
        ("/api/embed", True),
        ("Does it open? No. It waits.", False),
        ("and/or", False),
        ("", False),
    ],
)
def test_identifier_in_a_question_is_recognized_by_an_underscore_an_inner_dot_leading_dashes_or_path_slashes(
    question: str, named: bool
):
    assert contains_identifier(question) is named


@given(st.text(max_size=60))
def test_full_text_query_of_any_question_is_valid_fts5(question: str):
    match = match_of(question.replace("\0", ""))
    with sqlite3.connect(":memory:") as db:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(text, tokenize='porter unicode61')")
        if match:
            db.execute("SELECT rowid FROM words WHERE words MATCH ?", (match,)).fetchall()
    db.close()


@pytest.mark.parametrize(
    ("scope", "taken"),
    [
        (Scope(), True),
        (Scope(("docs",)), True),
        (Scope(("docs",), "guide/"), True),
        (Scope(("other",)), False),
        (Scope((), "guide/"), False),
        (Scope(None, "Guide/"), False),
    ],
)
def test_file_is_in_a_search_scope_only_if_both_its_agent_and_the_start_of_its_path_match(
    scope: Scope, taken: bool
):
    assert scope.contains("docs", "guide/memory.md") is taken


def test_knowledge_digest_quotes_every_file_once_before_any_file_twice():
    long = [("a.md", f"H{n}", f"Sentence {n}. More.") for n in range(50)]
    text = digest([*long, ("b.md", "", "Alone here.")], max_chars=120)
    assert text.splitlines()[0] == "a.md > H0: Sentence 0."
    assert text.splitlines()[-1] == "b.md: Alone here."
    assert len(text) <= 120


def test_knowledge_digest_of_an_empty_outline_is_empty():
    assert digest([], max_chars=100) == ""
