"""Samplers, filters and penalties, on small vocabularies."""

import math
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlx_server.engine.generation.sampling import (
    MOST_CANDIDATES,
    _filter,
    counter_key,
    greedy,
    make_processors,
    make_sampler,
)
from mlx_server.protocol import Sampling

LOGPROBS = mx.log(mx.array([[0.5, 0.25, 0.125, 0.0625, 0.0625]]))


def draw_with(sampler, logprobs=LOGPROBS) -> int:
    token: Any = sampler(logprobs).item()
    return int(token)


def draw(sampling, count=200):
    """Return the tokens at positions 0 to `count` - 1, each drawn by a new sampler."""
    return [draw_with(make_sampler(sampling, i)) for i in range(count)]


def test_random_key_of_the_sampler_differs_for_neighboring_seeds_and_positions():
    keys = {counter_key(seed, position) for seed in range(50) for position in range(50)}
    assert len(keys) == 2500
    assert all(0 <= key < 1 << 64 for key in keys)


def test_sampler_with_temperature_zero_draws_the_most_probable_token():
    assert make_sampler(Sampling(temperature=0.0), 0) is greedy
    assert draw_with(greedy) == 0


def test_sampler_draws_depend_only_on_seed_and_position():
    sampling = Sampling(seed=3, temperature=1.0)
    sampler = make_sampler(sampling, 0)
    in_order = [draw_with(sampler) for _ in range(50)]
    assert in_order == draw(sampling, 50)
    assert in_order != draw(Sampling(seed=4, temperature=1.0), 50)


def test_sampler_draws_the_same_tokens_if_logits_are_rounded_differently():
    logprobs = 3 * mx.random.normal((1, 50_000), key=mx.random.key(1))
    rounded = logprobs + 3e-5 * mx.random.normal(logprobs.shape, key=mx.random.key(2))
    samplers = [make_sampler(Sampling(seed=5, temperature=1.0), 0) for _ in range(2)]
    pairs = [(draw_with(samplers[0], logprobs), draw_with(samplers[1], rounded)) for _ in range(300)]
    assert sum(one != other for one, other in pairs) <= 1  # it was 5 with `mx.random.categorical`


def test_sampler_draws_tokens_as_often_as_their_probabilities_say():
    drawn = draw(Sampling(seed=1, temperature=1.0), 2000)
    assert drawn.count(0) / 2000 == pytest.approx(0.5, abs=0.05)
    assert drawn.count(1) / 2000 == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(
    ("sampling", "allowed"),
    [
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.6), {0, 1}),  # the token that crosses the mass is kept
        (Sampling(temperature=1.0, top_p=0.4), {0}),
        (Sampling(temperature=1.0, min_p=0.2), {0, 1, 2}),
        (Sampling(temperature=1.0, top_k=3, top_p=0.8, min_p=0.4), {0, 1}),
        (Sampling(temperature=1.0, top_k=99), {0, 1, 2, 3, 4}),
    ],
)
def test_sampler_draws_only_tokens_that_top_k_top_p_and_min_p_keep(sampling, allowed):
    assert set(draw(sampling)) == allowed


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("top_k", [0, 50])
def test_top_p_keeps_the_same_tokens_as_a_sort_of_the_whole_vocabulary(top_p, top_k):
    logits = 4 * mx.random.normal((1, 20_000), key=mx.random.key(7))
    kept = np.isfinite(np.array(_filter(logits, Sampling(top_p=top_p, top_k=top_k)))[0])
    falling = np.argsort(-np.array(logits[0], dtype=np.float64))[: top_k or None]
    mass = np.exp(np.array(logits[0], dtype=np.float64)[falling])
    above = np.cumsum(mass) - mass
    expected = falling[above < top_p * mass.sum()]
    share = {token: weight / mass.sum() for token, weight in zip(falling, mass, strict=True)}
    differing = set(np.flatnonzero(kept)) ^ set(expected)
    assert sum(share[token] for token in differing) < 1e-4  # float32 may decide about the last few


def test_top_p_without_top_k_keeps_a_bounded_number_of_tokens():
    distinct = mx.random.normal((1, 3 * MOST_CANDIDATES), key=mx.random.key(1)) * 0.01
    assert mx.isfinite(_filter(distinct, Sampling(top_p=0.99))).sum().item() == MOST_CANDIDATES


def test_make_processors_with_neutral_penalties_returns_none():
    assert make_processors(Sampling()) == []
    assert make_processors(Sampling(repeat_penalty=1.2, repeat_last_tokens=0)) == []


def test_sampling_penalties_lower_the_logits_of_earlier_tokens_only():
    sampling = Sampling(repeat_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    (penalize,) = make_processors(sampling)
    logits = penalize(mx.array([1, 3, 3]), mx.array([[1.0, 1.0, 1.0, -1.0]]))
    assert logits.tolist() == [[1.0, 0.5 - 0.25 - 0.5, 1.0, -2.0 - 0.5 - 0.5]]


def test_sampling_penalties_ignore_tokens_before_the_window_of_repeat_last_tokens():
    (penalize,) = make_processors(Sampling(presence_penalty=1.0, repeat_last_tokens=2))
    assert penalize(mx.array([0, 1, 2]), mx.zeros((1, 3))).tolist() == [[0.0, -1.0, -1.0]]


@pytest.mark.parametrize("last", [2**31, 2**63, 10**30])
def test_sampling_penalties_accept_a_window_of_more_than_32_bits(last):
    """An error in a step of the batch ends the engine, and MLX's slices take 32-bit integers only."""
    tokens, logits = mx.array([1, 3]), mx.zeros((1, 4))
    (penalize,) = make_processors(Sampling(presence_penalty=1.0, repeat_last_tokens=last))
    assert penalize(tokens, logits).tolist() == [[0.0, -1.0, 0.0, -1.0]]


def test_sampler_never_draws_a_token_of_probability_zero():
    sampler = make_sampler(Sampling(temperature=5.0, top_k=2), 0)
    logprobs = mx.array([[0.0, -math.inf, -math.inf]])
    assert {draw_with(sampler, logprobs) for _ in range(50)} == {0}
