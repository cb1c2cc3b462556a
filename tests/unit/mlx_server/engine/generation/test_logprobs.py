"""Log-probabilities of answers, from a model with random weights that computes in bfloat16."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models import llama

from mlx_server.engine.generation.batch import Batch, Sampled
from mlx_server.engine.generation.logprobs import Float32Logits
from mlx_server.engine.generation.sampling import make_processors, make_sampler
from mlx_server.protocol import Sampling

GREEDY = Sampling(temperature=0.0)
PENALIZED = Sampling(temperature=0.0, repeat_penalty=1.1, repeat_last_tokens=64)
PROMPT = [7, 3, 9, 4] * 4


@pytest.fixture(scope="module")
def model() -> Any:
    mx.random.seed(3)
    made = llama.Model(
        llama.ModelArgs(
            model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=64,
            num_attention_heads=2, rms_norm_eps=1e-6, vocab_size=48, tie_word_embeddings=False,
        )
    )  # fmt: skip
    made.set_dtype(mx.bfloat16)
    return made


@pytest.mark.parametrize("drafting", [False, True])
@pytest.mark.parametrize("others", [[], [PENALIZED]])
def test_logprobs_of_a_bfloat16_model_are_float32_whatever_other_requests_run(model, others, drafting):
    """They were rounded to bfloat16, unless a request with a penalty ran beside them."""
    batch = Batch(model, 4, 32, drafting=drafting)
    uids = [batch.add(PROMPT, make_sampler(each, 0), make_processors(each)) for each in [GREEDY, *others]]
    found: list[Any] = []
    while len(found) < (200 if drafting and not batch.draft_counts.lookup_guessed else 24):
        found += [each.logprobs for each in batch.step() if isinstance(each, Sampled) and each.uid == uids[0]]
    batch.close()
    assert bool(batch.draft_counts.lookup_guessed) == drafting
    assert {each.dtype for each in found} == {mx.float32}
    assert [mx.exp(each).sum().item() for each in found] == pytest.approx([1.0] * len(found), abs=1e-5)


def test_logits_that_are_float32_already_are_returned_as_they_are():
    logits = mx.array([[1.0, 2.0]])
    assert Float32Logits(lambda tokens, cache: logits)(mx.array([[1]]), cache=[]).tolist() == logits.tolist()
