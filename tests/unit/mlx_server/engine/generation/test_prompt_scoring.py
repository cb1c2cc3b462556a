"""Each token of a prompt is scored with the probability that the model gave it before reading it."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompt_scoring import STEP_TOKENS, PromptScorer, check_reported
from mlx_server.protocol import Generate

VOCABULARY = 8


class NextNumber:
    """A model that expects after each token the next higher one, with a logit of 2 against 0."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        rows: Any = inputs.tolist()
        (tokens,) = rows
        self.read += tokens
        expected = mx.array([[2.0 * (n == (t + 1) % VOCABULARY) for n in range(VOCABULARY)] for t in tokens])
        return expected[None]


def token_bytes(token: int) -> bytes:
    return str(token).encode()


@pytest.mark.parametrize("length", [1, 2, STEP_TOKENS + 1, STEP_TOKENS + 2, 3 * STEP_TOKENS])
def test_prompt_scorer_scores_every_prompt_token_without_feeding_the_last_one_to_the_model(length):
    prompt = [n % VOCABULARY for n in range(length)]
    model = NextNumber()
    scorer = PromptScorer(model, prompt, [], top=2)
    while not scorer.done.done():
        scorer.add(scorer.compute(), token_bytes)
    assert model.read == prompt[:-1]
    assert [score.drawn.text for score in scorer.scores] == [str(token) for token in prompt]
    likely = 2 - math.log(math.exp(2) + VOCABULARY - 1)
    for token, score in zip(prompt[1:], scorer.scores[1:], strict=True):
        assert score.drawn.logprob == pytest.approx(likely, abs=1e-5)
        assert score.top[0].text == str(token) and len(score.top) == 2


def test_prompt_with_too_many_token_scores_for_one_answer_is_refused_with_the_limit():
    op = Generate("r", "m", "text", prompt_logprobs=True, top_logprobs=20)
    check_reported(op, 12_000)
    with pytest.raises(RequestError, match="at most 9 alternatives"):
        check_reported(op, 25_000)
    check_reported(Generate("r", "m", "text", top_logprobs=20), 25_000)
