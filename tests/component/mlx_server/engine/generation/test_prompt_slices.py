"""Prompts are read in slices that pause for running answers: no text changes, and each step has a token."""

from __future__ import annotations

from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mlx_lm.models import llama  # noqa: E402
from mlx_lm.models.base import scaled_dot_product_attention  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Prefilled, Sampled  # noqa: E402
from mlx_server.engine.generation.prefill_pace import PrefillPace  # noqa: E402
from mlx_server.engine.generation.sampling import make_sampler  # noqa: E402
from mlx_server.engine.layers.attention import ATTENTION, attention  # noqa: E402
from mlx_server.protocol import Sampling  # noqa: E402
from tests.component.mlx_server.engine.generation.test_drafting import random_model  # noqa: E402

GREEDY = make_sampler(Sampling(temperature=0.0), 0)
LONG = [(7 * number) % 46 + 1 for number in range(300)]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(seed=3, vocabulary=48)


@pytest.fixture(autouse=True)
def paused_at_every_point(monkeypatch):
    """Let each step process as little of a slice as it can: it is paused once in each of its layers."""
    monkeypatch.setattr(llama, ATTENTION, attention)
    monkeypatch.setattr(PrefillPace, "until_pause_s", property(lambda pace: 0.0))


def alone(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """Return the first tokens of an answer without other requests."""
    batch, answer = Batch(model, 8, 512), list[int]()
    batch.add(prompt, GREEDY, [])
    while len(answer) < tokens:
        answer += [one.token for one in batch.step() if isinstance(one, Sampled)]
    batch.close()
    return answer[:tokens]


def with_running_answer(model: Any, *, drafting: bool = False, max_running: int = 8) -> tuple[Batch, int]:
    """Return a batch, and the uid of an answer in it that has some tokens."""
    batch = Batch(model, max_running, 128, drafting=drafting)
    uid = batch.add([1, 2, 3], GREEDY, [])
    tokens = 0
    while tokens < 2:
        tokens += sum(isinstance(one, Sampled) for one in batch.step())
    return batch, uid


def test_prefill_of_a_long_prompt_in_slices_gives_a_running_answer_a_token_in_each_step(model):
    batch, answer = with_running_answer(model)
    long, steps, progress = batch.add(LONG, GREEDY, []), 0, list[int]()
    while not progress or progress[-1] < len(LONG):
        events = list(batch.step())
        assert answer in {one.uid for one in events if isinstance(one, Sampled)}
        progress += [one.done for one in events if isinstance(one, Prefilled) and one.uid == long]
        steps += 1
    batch.close()
    assert progress == sorted(progress)
    slices = len(progress) - 2  # without the last token, and the step in which it joins
    assert steps >= 3 * slices  # a step for each of the two layers of a slice, and for its end


prompts = st.lists(st.integers(1, 46), min_size=1, max_size=60)


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(prompts, st.integers(0, 12), st.integers(1, 12)), min_size=1, max_size=4),
    st.booleans(),
    st.integers(2, 5),
)
def test_prefill_in_slices_changes_no_answer_when_requests_join_and_leave_at_any_step(
    model, asked, drafting, max_running
):
    """Requests come at any step, also in the middle of a slice, and go when they have their tokens."""
    batch, first = with_running_answer(model, drafting=drafting, max_running=max_running)
    answers, wanted, steps = dict[int, list[int]](), dict[int, tuple[list[int], int]](), 0
    waiting = list(asked)
    while waiting or len(batch) > 1:
        for one in [each for each in waiting if each[1] <= steps]:
            waiting.remove(one)
            uid = batch.add(one[0], GREEDY, [])
            answers[uid], wanted[uid] = [], (one[0], one[2])
        for outcome in list(batch.step()):
            if isinstance(outcome, Sampled) and len(answer := answers.get(outcome.uid, [])) < 12:
                answer.append(outcome.token)
                if outcome.uid in wanted and len(answer) == wanted[outcome.uid][1]:
                    batch.remove(outcome.uid)
        steps += 1
    batch.remove(first)
    batch.close()
    for uid, (prompt, tokens) in wanted.items():
        assert answers[uid][:tokens] == alone(model, prompt, tokens)


def test_keys_and_values_of_a_prefill_slice_are_hidden_until_the_slice_is_finished(model):
    batch, answer = with_running_answer(model)
    long = batch.add(LONG, GREEDY, [])
    list(batch.step())
    assert batch.is_incomplete(long) and not batch.is_incomplete(answer)
    assert batch.computed(long) is None and batch.computed(answer) is not None
    assert batch.kv_bytes > 0
    batch.finish_slice()
    computed = batch.computed(long)
    assert computed is not None
    assert computed.caches[0].size() == computed.caches[1].size() == len(computed.tokens) > 0
    batch.close()


def test_request_removed_midway_through_a_prefill_slice_does_not_change_other_answers(model):
    batch, answer = with_running_answer(model)
    short, tokens = [5, 6, 7, 8], list[int]()
    long, other = batch.add(LONG, GREEDY, []), batch.add(short, GREEDY, [])
    list(batch.step())
    assert batch.is_incomplete(long)
    batch.remove(long)
    while len(tokens) < 8:
        events = list(batch.step())
        assert all(one.uid != long for one in events)
        tokens += [one.token for one in events if isinstance(one, Sampled) and one.uid == other]
    batch.close()
    assert tokens[:8] == alone(model, short, 8)


def test_prefill_slice_paused_for_a_running_answer_continues_if_that_answer_is_removed(model):
    batch, answer = with_running_answer(model)
    long = batch.add(LONG, GREEDY, [])
    list(batch.step())
    batch.remove(answer)
    assert batch.is_incomplete(long)
    tokens: list[int] = []
    while len(tokens) < 8:
        tokens += [one.token for one in batch.step() if isinstance(one, Sampled)]
    batch.close()
    assert tokens[:8] == alone(model, LONG, 8)


def test_prefill_slice_in_progress_is_dropped_when_the_batch_closes(model):
    batch, _ = with_running_answer(model)
    batch.add(LONG, GREEDY, [])
    list(batch.step())
    batch.close()
    assert len(batch) == 0 and not batch.is_incomplete(1)


def test_prefill_slice_is_processed_in_one_step_if_the_attention_cannot_be_paused(model, monkeypatch):
    monkeypatch.setattr(llama, ATTENTION, scaled_dot_product_attention)
    batch, _ = with_running_answer(model)
    long = batch.add(LONG, GREEDY, [])
    assert any(isinstance(one, Prefilled) and one.uid == long for one in batch.step())
    batch.close()


def test_short_prompt_removed_while_paused_in_its_first_step_leaves_the_batch(model):
    """Its request was in none of mlx-lm's batches then, was not removed, and joined the answers for good."""
    batch, answer = with_running_answer(model)
    short = batch.add([5, 6, 7, 8, 9, 10], GREEDY, [])
    list(batch.step())
    assert batch.is_incomplete(short) and batch.computed(short) is None
    batch.remove(short)
    for _ in range(4):
        assert {one.uid for one in batch.step()} == {answer}
    assert batch._generator._generation_batch.uids == [answer]
    batch.close()
