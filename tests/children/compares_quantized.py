"""Print as JSON how the next token's probabilities differ between requests alone, in a batch, and resumed.

Usage: compares_quantized.py MODELS_DIR KV_BITS

The tokens of the answers are given, so that one token sampled differently does not change all that follow.
Each figure is a total variation distance, the mean over all tokens: 0 for equal distributions, 1 for
disjoint.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_server import blas

blas.preload()

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402

from mlx_server.engine.generation.batch import Batch, Sampled  # noqa: E402
from mlx_server.engine.models.language_model import LanguageModel  # noqa: E402
from mlx_server.memory_forecast.kv_quantization import KvQuantization  # noqa: E402
from mlx_server.model_store import find  # noqa: E402
from tests.children.whole_model import loaded  # noqa: E402
from vestal.config import load as load_config  # noqa: E402

Probabilities = list[np.ndarray[Any, Any]]
STEP_TOKENS, ANSWER_TOKENS, CUT = 64, 12, 5
TEXTS = (
    "The fox lives in the wood, where it hunts at night and sleeps by day, far from any town or road.",
    "The keeper of the lighthouse wrote in his book that a storm had come with the tide. " * 12,
    "Old maps show islands that nobody has ever found, and leave out some that are there.",
    "Bread is made of flour, water, salt and time; what more there is to it takes years to learn.",
)


class GivenTokens:
    """A sampler that returns the given tokens, then token 0."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = itertools.chain(tokens, itertools.repeat(0))

    def __call__(self, logprobs: mx.array) -> mx.array:
        return mx.array([next(self._tokens)])


class Runs:
    """Run requests in one batch, each with its given answer, and collect the probabilities of each token."""

    def __init__(self, model: Any, kv: KvQuantization | None) -> None:
        self._batch = Batch(model, 8, STEP_TOKENS, kv)
        self._found: dict[int, Probabilities] = {}
        self._wanted: dict[int, int] = {}

    def add(self, prompt: Sequence[int], answer: Sequence[int]) -> int:
        uid = self._batch.add(list(prompt), GivenTokens(answer), [])
        self._found[uid], self._wanted[uid] = [], len(answer)
        return uid

    def step(self) -> None:
        for event in list(self._batch.step()):
            if isinstance(event, Sampled) and len(self._found[event.uid]) < self._wanted[event.uid]:
                self._found[event.uid].append(np.exp(np.array(event.logprobs, dtype=np.float64)))

    def remove(self, uid: int) -> None:
        self._batch.remove(uid)
        self._wanted[uid] = 0

    def finish(self) -> dict[int, Probabilities]:
        while any(len(self._found[uid]) < wanted for uid, wanted in self._wanted.items()):
            self.step()
        self._batch.close()
        return self._found


def alone(
    model: Any, kv: KvQuantization | None, prompt: Sequence[int], answer: Sequence[int]
) -> Probabilities:
    runs = Runs(model, kv)
    uid = runs.add(prompt, answer)
    return runs.finish()[uid]


def together(
    model: Any, kv: KvQuantization, work: Sequence[tuple[list[int], list[int]]]
) -> list[Probabilities]:
    """Start two requests, let the others join them, and cancel one more in the middle."""
    runs = Runs(model, kv)
    uids = [runs.add(*one) for one in work[:2]]
    leaving = runs.add(work[0][0] + work[2][0], work[0][1])
    for _ in range(3):
        runs.step()
    uids += [runs.add(*one) for one in work[2:]]
    for _ in range(3):
        runs.step()
    runs.remove(leaving)
    found = runs.finish()
    return [found[uid] for uid in uids]


def distance(one: Sequence[Probabilities], other: Sequence[Probabilities]) -> float:
    pairs = zip(itertools.chain(*one), itertools.chain(*other), strict=True)
    return float(np.mean([np.abs(a - b).sum() / 2 for a, b in pairs]))


def main(models_dir: str, bits: int) -> None:
    entry = find(load_config({"VESTAL_MODELS_DIR": models_dir}, Path.cwd()), "smollm2:135m")
    assert entry is not None
    whole = loaded(entry)
    assert isinstance(whole, LanguageModel)
    model, kv = whole.model, KvQuantization(bits, 64)
    ids = [whole.tokenizer.encode(text) for text in TEXTS]
    work = [(tokens[:-ANSWER_TOKENS], tokens[-ANSWER_TOKENS:]) for tokens in ids]
    own = [alone(model, kv, *one) for one in work]
    plain = [alone(model, None, *one) for one in work]
    resumed = [alone(model, kv, prompt + answer[:CUT], answer[CUT:]) for prompt, answer in work]
    found = {
        "together": distance(own, together(model, kv, work)),
        "resumed": distance([probabilities[CUT:] for probabilities in own], resumed),
        "as_computed": distance(own, plain),
        "other_text": distance(own[:1], own[2:3]),
    }
    print(json.dumps(found), flush=True)


main(sys.argv[1], int(sys.argv[2]))
