"""Slices of a prompt are as large as the running answers allow."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_server.engine.generation.prefill_pace import FEWEST_TOKENS, PrefillPace


def paced(pace: PrefillPace, step_s: float, fixed_s: float, token_s: float, steps: int = 60) -> list[float]:
    """Return the seconds of each step with a slice, for these costs of slices that cannot be paused."""
    took = []
    for _ in range(steps):
        tokens = pace.slice_tokens(1)
        slice_s = fixed_s + tokens * token_s
        took.append(step_s + slice_s)
        pace.record_slice(tokens, slice_s)
    return took


def test_prefill_slice_is_as_large_as_the_settings_allow_while_no_answer_runs():
    pace = PrefillPace(512)
    pace.record_step(0.05)
    paced(pace, 0.05, 0.0, 0.004)
    assert pace.slice_tokens(0) == 512
    assert pace.slice_tokens(1) < 512


@given(
    st.floats(0.005, 0.5),
    st.floats(0, 1),
    st.floats(0.01, 0.09),
    st.integers(FEWEST_TOKENS, 2048),
)
def test_prefill_pace_adapts_until_a_step_with_a_slice_takes_at_most_three_times_the_usual_step_time(
    step_s, fixed, token, most
):
    """This holds for any cost per slice and per token, unless even the smallest slice is too slow."""
    pace = PrefillPace(most)
    pace.record_step(step_s)
    took = paced(pace, step_s, fixed * step_s, token * step_s)
    smallest_s = step_s * (1 + fixed + FEWEST_TOKENS * token)
    assert max(took[20:]) <= max(3 * step_s, smallest_s) * 1.001
    assert FEWEST_TOKENS <= pace.slice_tokens(4) <= most


def test_prefill_slices_beside_running_answers_use_most_of_the_allowed_step_time():
    pace = PrefillPace(512)
    pace.record_step(0.1)
    assert 0.25 < paced(pace, 0.1, 0.02, 0.004)[-1] < 0.28


def test_prefill_slices_shrink_by_at_most_half_after_a_single_slow_step():
    pace = PrefillPace(512)
    pace.record_step(0.1)
    paced(pace, 0.1, 0.0, 0.001)
    usual = pace.slice_tokens(1)
    pace.record_slice(usual, 60.0)
    assert pace.slice_tokens(1) >= usual // 2


def test_short_last_slice_of_a_prompt_does_not_change_the_slice_size():
    pace = PrefillPace(512)
    pace.record_step(0.1)
    usual = pace.slice_tokens(1)
    pace.record_slice(3, 0.1)
    assert pace.slice_tokens(1) == usual


def test_prefill_slices_stay_small_until_the_step_time_of_the_answers_is_known():
    pace = PrefillPace(512)
    assert not pace.knows_step
    assert max(paced(pace, 0.1, 0.0, 0.001)) == 0.1 + 2 * FEWEST_TOKENS * 0.001


@example(0.5, 0.2578125, 0.0001, 76)
@given(st.floats(0.005, 0.5), st.floats(0, 0.3), st.floats(0.0001, 0.02), st.integers(FEWEST_TOKENS, 2048))
def test_pausable_prefill_slice_is_as_large_as_the_time_limits_of_each_part_and_of_the_whole_slice_allow(
    step_s, fixed, token, most
):
    """Each of 30 parts costs `fixed` steps, and `token` more for each token of the slice. Where a token costs
    little of a part, the size needs many slices to settle.
    """
    pace = PrefillPace(most)
    pace.record_step(step_s)
    for _ in range(600):
        tokens = pace.slice_tokens(1)
        part_s = step_s * (fixed + token * tokens)
        pace.record_slice(tokens, 30 * part_s, part_s)
    smallest, largest = (fixed + token * size for size in (FEWEST_TOKENS, most))
    part = fixed + token * pace.slice_tokens(1)
    allowed = min(0.4, 8 / 30)
    assert part <= max(allowed, smallest) * 1.001 + token  # a slice has whole tokens
    assert part >= min(max(allowed, smallest), largest) * 0.999 - token


def test_prefill_slice_is_not_paused_until_the_step_time_of_the_answers_is_known():
    pace = PrefillPace(512)
    assert pace.until_pause_s == float("inf")
    pace.record_step(0.1)
    assert pace.until_pause_s == pytest.approx(0.08)
