"""Drafted tokens are guessed from the text so far, and their number follows how many are accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.drafting.draft_length import (
    FIRST_LENGTH,
    MOST_LENGTH,
    DraftLength,
)
from mlx_server.engine.generation.drafting.prompt_lookup import MATCH_TOKENS, PromptLookup
from mlx_server.engine.generation.drafting.step_costs import StepCosts

COST = StepCosts().cost_to_verify(1, 4, 4)


def lookup_of(tokens: list[int]) -> PromptLookup:
    lookup = PromptLookup()
    lookup.read(tokens)
    return lookup


@pytest.mark.parametrize(
    ("known", "drawn", "limit", "guess"),
    [
        ([1, 2, 3, 4, 5, 1, 2], 3, 2, [4, 5]),
        ([1, 2, 3, 4, 5, 1, 2, 3], None, 2, [4, 5]),
        ([1, 2, 3, 4, 1, 2, 3, 9, 1, 2], 3, 1, [9]),  # the last occurrence counts
        ([1, 2, 3, 4, 5, 1, 2], 3, 9, [4, 5, 1, 2, 3, 4, 5, 1, 2]),  # as if the text repeated itself
        ([7, 7, 7, 7], 7, 3, [7, 7, 7]),
        ([1, 2, 3, 4, 5], 6, 4, []),
        ([1, 2], 1, 4, []),
        ([], 1, 4, []),
        ([1, 2, 3, 4, 1, 2], 3, 0, []),
    ],
)
def test_prompt_lookup_guesses_the_tokens_that_followed_the_last_occurrence_of_the_newest_tokens(
    known, drawn, limit, guess
):
    assert lookup_of(known).guess(drawn, limit) == guess


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 3), st.integers(1, 12), st.integers(0, 60))
def test_prompt_lookup_guesses_only_what_followed_an_earlier_occurrence_of_the_newest_tokens(
    tokens, drawn, limit, cut
):
    """The tokens may be read at once or bit by bit, and a guess is always a true continuation of the past."""
    bit_by_bit = lookup_of(tokens[:cut])
    bit_by_bit.read(tokens)
    guess = bit_by_bit.guess(drawn, limit)
    assert guess == lookup_of(tokens).guess(drawn, limit)
    whole = [*tokens, drawn]
    last = whole[-MATCH_TOKENS:]
    earlier = [i for i in range(len(tokens) - MATCH_TOKENS) if tokens[i : i + MATCH_TOKENS] == last]
    assert bool(guess) == bool(earlier)
    if guess:
        begin = earlier[-1] + MATCH_TOKENS
        assert len(guess) == limit
        assert guess[: len(whole) - begin] == whole[begin : begin + limit]


def test_prompt_lookup_guesses_correctly_after_reading_more_tokens_than_its_initial_capacity():
    lookup = lookup_of([1, 2, 3])
    lookup.read([1, 2, 3, *range(4, 5000), 1, 2])
    assert lookup.guess(3, 3) == [4, 5, 6]


def test_cost_to_drafted_token_grows_with_running_requests_and_computed_tokens():
    cost = StepCosts().cost_to_verify
    assert 0.1 < cost(1, 4, 4) < 0.2
    assert 0.4 < cost(4, 16, 16) < 0.5
    assert cost(4, 16, 8) == 2 * cost(4, 16, 16)
    assert cost(8, 8, 8) < 1


def test_cost_of_verifying_a_token_is_the_additional_time_of_the_steps_with_drafts():
    costs = StepCosts()
    costs.record_verified(4, 16, 9.0)  # ignored: nothing to compare with
    assert costs.cost_to_verify(4, 16, 16) == StepCosts().cost_to_verify(4, 16, 16)
    costs.record_plain(4, 0.1)
    costs.record_verified(4, 20, 0.2)  # 5 ms a token; without drafts, 4 requests get 40 tokens a second
    assert costs.cost_to_verify(4, 20, 20) == pytest.approx(0.2)
    assert costs.cost_to_verify(4, 20, 10) == pytest.approx(0.4)
    costs.record_verified(4, 20, 60.0)
    assert costs.cost_to_verify(4, 20, 20) < 0.3, "one step that was held up hardly counts"
    for _ in range(60):
        costs.record_verified(4, 20, 0.1)
    assert costs.cost_to_verify(4, 20, 20) == pytest.approx(0.0, abs=0.001)


def test_longest_draft_lets_a_step_take_at_most_three_times_as_long_as_without_drafts():
    costs = StepCosts()
    assert costs.longest_draft(0) > MOST_LENGTH
    assert costs.longest_draft(1) > MOST_LENGTH, "no other request waits"
    assert [costs.longest_draft(requests) for requests in (4, 8, 16)] == [4, 3, 2]
    costs.record_plain(8, 0.05)
    costs.record_verified(8, 8, 0.06)  # 1.25 ms a token
    assert costs.longest_draft(8) == 7, "64 tokens a step at most"
    assert costs.longest_draft(4) == 4, "not measured yet, and a token costs less the more requests there are"
    costs.record_plain(4, 0.05)
    costs.record_verified(4, 4, 0.055)
    assert costs.longest_draft(4) == 15
    assert costs.longest_draft(64) == 0
    for _ in range(60):
        costs.record_verified(8, 8, 0.45)  # 50 ms a token
    assert costs.longest_draft(8) == 1, "so that the cost is measured again"


def test_draft_length_grows_while_all_guessed_tokens_are_accepted():
    length = DraftLength()
    assert length.tokens == FIRST_LENGTH
    for _ in range(4):
        length.record(length.tokens, length.tokens, COST)
    assert length.tokens == MOST_LENGTH
    length.record(MOST_LENGTH, 2, COST)
    assert length.tokens == 3


def test_drafting_pauses_longer_after_each_series_of_rejected_guesses():
    length = DraftLength()
    pauses: list[int] = []
    for _ in range(3):
        while length.tokens:
            length.record(length.tokens, 0, COST)
        pause = 0
        while not length.tokens:
            length.record_plain()
            pause += 1
        pauses.append(pause)
    assert pauses == [16, 32, 64]
    length.record(4, 4, COST)
    while length.tokens:
        length.record(length.tokens, 0, COST)
    assert length._pause_tokens == 16


@given(st.lists(st.floats(0, 1), max_size=400))
def test_drafting_costs_at_most_a_few_steps_per_pause_more_than_it_saves_whatever_is_accepted(shares):
    """Whatever is accepted, guesses cost at most a few steps for each pause more than they saved."""
    length = DraftLength()
    saved, pauses, was_paused = 0.0, 0, False
    for share in shares:
        if guessed := length.tokens:
            accepted = int(share * guessed)
            saved += accepted - COST * guessed
            length.record(guessed, accepted, COST)
            was_paused = False
        else:
            pauses += not was_paused
            was_paused = True
            length.record_plain()
    assert saved >= -(7.0 + 5.0 * (pauses + 1))


def test_cost_of_a_draft_models_guess_is_relative_to_the_time_of_a_step_without_drafts():
    costs = StepCosts()
    assert costs.cost_to_draft(1, 0.02, 4) == 0.0, "nothing to compare with yet"
    costs.record_plain(1, 0.1)
    costs.record_plain(4, 0.2)
    assert costs.cost_to_draft(1, 0.02, 4) == pytest.approx(0.05)
    assert costs.cost_to_draft(4, 0.02, 4) == pytest.approx(0.1), "four requests wait"
    assert costs.cost_to_draft(8, 0.02, 4) == pytest.approx(0.2), "the nearest number that was measured"
    assert costs.cost_to_draft(1, 9.0, 4) == 1.0, "a guess saves no more than a token"
    assert costs.cost_to_draft(1, 0.0, 0) == 0.0


def test_single_delayed_step_hardly_changes_the_average_step_time_for_drafting():
    costs = StepCosts()
    for _ in range(10):
        costs.record_plain(1, 0.1)
    costs.record_plain(1, 60.0)
    assert costs.cost_to_draft(1, 0.1, 1) > 0.7


def test_prompt_lookup_is_promising_only_after_four_tokens_that_occurred_before():
    """Three often recur in prose without the next one, and the step that waits for it is slower."""
    lookup, text = PromptLookup(), [1, 2, 3, 4, 5, 9, 2, 3, 4]
    lookup.read(text)
    assert lookup.guess(5, 2) == [9, 2]
    assert not lookup.is_promising
    lookup.read([*text, 5])
    assert lookup.is_promising
    lookup.read([*text, 5, 7])
    assert not lookup.is_promising


@pytest.mark.parametrize("tokens", [0, 3, 4])
def test_prompt_lookup_of_too_short_a_text_is_not_promising(tokens):
    lookup = PromptLookup()
    lookup.read([1] * tokens)
    assert not lookup.is_promising
    lookup.read([1] * 5)
    assert lookup.is_promising
