"""A short rest of a prompt is computed in the step that samples the first token, and no answer changes."""

from __future__ import annotations

from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from mlx_server.engine.generation import batch as batch_module  # noqa: E402
from mlx_server.engine.generation.batch import Batch, Prefilled, Sampled  # noqa: E402
from mlx_server.engine.generation.prompt_batch import MOST_TOKENS  # noqa: E402
from mlx_server.engine.generation.sampling import make_sampler  # noqa: E402
from mlx_server.protocol import Sampling  # noqa: E402
from tests.component.mlx_server.engine.generation.test_drafting import random_model  # noqa: E402

GREEDY = make_sampler(Sampling(temperature=0.0), 0)
TOKENS = 6
PROMPT = [(7 * number) % 46 + 1 for number in range(60)]


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(seed=3, vocabulary=48)


class Context:
    """A logits processor that keeps the tokens which it was given, and forbids the last one of them."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def __call__(self, tokens: Any, logits: Any) -> Any:
        self.seen.append(tokens.tolist())
        return mx.where(mx.arange(logits.shape[-1]) == tokens[-1], -1e9, logits)


def answers_of(model: Any, prompts: list[list[int]], *, drafting: bool = False) -> tuple[Any, ...]:
    """Let all prompts be answered together. Return the answers, what their processors saw first, the last
    progress of each prompt, and the numbers of tokens whose keys and values are there.
    """
    batch, contexts = Batch(model, 8, 512, drafting=drafting), [Context() for _ in prompts]
    uids = [batch.add(prompt, GREEDY, [context]) for prompt, context in zip(prompts, contexts, strict=True)]
    answers, progress = dict[int, list[int]]({uid: [] for uid in uids}), dict[int, tuple[int, int]]()
    while min(map(len, answers.values())) < TOKENS:
        for outcome in list(batch.step()):
            if isinstance(outcome, Prefilled):
                progress[outcome.uid] = outcome.done, outcome.total
            elif isinstance(outcome, Sampled):
                answers[outcome.uid].append(outcome.token)
    computed = [batch.computed(uid) for uid in uids]
    sizes = [each is not None and each.tokens[: len(prompts[i])] for i, each in enumerate(computed)]
    batch.close()
    firsts = [context.seen[0] for context in contexts]
    return [answers[uid][:TOKENS] for uid in uids], firsts, [progress[uid] for uid in uids], sizes


@settings(deadline=None, max_examples=40)
@given(
    prompts=st.lists(st.lists(st.integers(1, 46), min_size=1, max_size=40), min_size=1, max_size=4),
    same_length=st.booleans(),
    drafting=st.booleans(),
)
def test_short_prompts_prefilled_in_the_same_call_as_their_first_token_get_unchanged_answers(
    model, prompts, same_length, drafting
):
    if same_length:
        prompts = [prompt[: min(map(len, prompts))] for prompt in prompts]
    found = answers_of(model, prompts, drafting=drafting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "MOST_TOKENS", 0)
        assert found == answers_of(model, prompts, drafting=drafting)
    _, firsts, progress, sizes = found
    assert firsts == sizes == prompts
    assert progress == [(len(prompt), len(prompt)) for prompt in prompts]


def calls_until_first_token(model: Any, monkeypatch: Any, prompt: list[int], **options: Any) -> list[int]:
    """Return how many tokens each call of the model computed until the first token of the answer."""
    calls, compute = list[int](), type(model).__call__

    def count(self: Any, tokens: Any, **rest: Any) -> Any:
        calls.append(tokens.shape[1])
        return compute(self, tokens, **rest)

    monkeypatch.setattr(type(model), "__call__", count)
    batch = Batch(model, 8, 512)
    batch.add(prompt, GREEDY, [], **options)
    while not any(isinstance(outcome, Sampled) for outcome in list(batch.step())):
        pass
    batch.close()
    return calls


@pytest.mark.parametrize(
    ("tokens", "pause_at", "calls"),
    [
        (1, 0, [1]),
        (2, 0, [2]),
        (MOST_TOKENS, 0, [MOST_TOKENS]),
        (MOST_TOKENS + 1, 0, [MOST_TOKENS, 1]),
        (10, 6, [6, 3, 1]),  # the caller stores the state after 6 tokens
    ],
)
def test_first_token_of_a_short_prompt_takes_one_call_of_the_model(
    model, monkeypatch, tokens, pause_at, calls
):
    assert calls_until_first_token(model, monkeypatch, PROMPT[:tokens], pause_at=pause_at) == calls


def test_first_token_of_a_prompt_whose_uncached_part_is_short_takes_one_call_of_the_model(model, monkeypatch):
    batch = Batch(model, 8, 512)
    uid = batch.add(PROMPT, GREEDY, [])
    while not any(isinstance(outcome, Sampled) for outcome in list(batch.step())):
        pass
    computed = batch.computed(uid)
    assert computed is not None
    caches = [cache.extract(computed.row) for cache in computed.caches]
    for cache in caches:
        cache.trim(cache.offset - 50)
    batch.close()
    assert calls_until_first_token(model, monkeypatch, PROMPT, caches=caches, cached=50) == [10]
