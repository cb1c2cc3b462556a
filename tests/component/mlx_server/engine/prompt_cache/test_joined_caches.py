"""Requests whose caches are new, or were restored from RAM or disk, join each other in one batch. In November
2026, a chat restored from a snapshot that joined a new one ended the engine: their caches had other classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlx.core")

from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_server.engine.generation.batch import Batch, Prefilled, Sampled
from mlx_server.engine.kv.request_caches import make_request_caches
from mlx_server.memory_forecast.kv_quantization import KvQuantization
from tests.component.mlx_server.engine.kv.test_request_caches import (
    full_attention,
    sliding_window,
    wide_hybrid,
)
from tests.component.mlx_server.engine.prompt_cache.test_prompt_cache_snapshots import (
    PROMPT,
    Runs,
    made,
    state_space,
    third_best,
)

QUANTIZED = KvQuantization(8, 32)
KINDS = {
    "full": (full_attention, None),
    "sliding": (sliding_window, None),
    "recurrent": (state_space, None),
    "hybrid": (wide_hybrid, None),
    "full, quantized": (full_attention, QUANTIZED),
    "sliding, quantized": (sliding_window, QUANTIZED),
    "hybrid, quantized": (wide_hybrid, QUANTIZED),
}
ORIGINS = ("new", "from RAM", "from disk")
ANSWER_TOKENS = 6


class Joins:
    """Lets requests of one model join each other in a batch. The keys and values of their prompts are new, or
    come from a prompt cache that has them in RAM, or from one that has just been opened on the same folder.
    """

    def __init__(self, make: Callable[[], Any], kv: KvQuantization | None, folder: Path) -> None:
        self.model, self.kv, self.prompts = made(make), kv, (PROMPT[:41], PROMPT[30:83])
        self.folder, self.kept = folder, Runs(self.model, folder, kv)
        self.alone = [self.kept.answers(prompt)[0][0][:ANSWER_TOKENS] for prompt in self.prompts]
        self.kept.store.persist(10.0)

    def restored(self, prompt: Sequence[int], origin: str) -> tuple[list[Any], int]:
        """Return the prompt's caches of this origin, and how many of its tokens they hold."""
        if origin == "new":
            return make_request_caches(self.model, self.kv), 0
        cache = (Runs(self.model, self.folder, self.kv) if origin == "from disk" else self.kept).cache
        found = cache.find(prompt)
        assert found is not None
        return cache.finish_restore(found, cache.restore_job(found)())

    def answers(self, requests: Sequence[tuple[int, str, int]]) -> list[list[int]]:
        """Run requests in one batch, and return the answers. Each request is given by the number of its
        prompt, the origin of its caches, and how many steps after the previous request it joins.
        """
        batch, answers = Batch(self.model, 8, 32, self.kv), dict[int, list[int]]()
        for number, origin, after_steps in requests:
            self._steps(batch, answers, after_steps)
            caches, cached = self.restored(self.prompts[number], origin)
            assert bool(cached) is (origin != "new")
            answers[batch.add(self.prompts[number], third_best, [], caches, cached)] = []
        while len(batch):
            self._steps(batch, answers, 1)
        batch.close()
        return list(answers.values())

    def _steps(self, batch: Batch, answers: dict[int, list[int]], steps: int) -> None:
        for outcome in itertools.chain.from_iterable(list(batch.step()) for _ in range(steps) if len(batch)):
            if isinstance(outcome, Prefilled) or len(answers[outcome.uid]) == ANSWER_TOKENS:
                continue
            assert isinstance(outcome, Sampled)
            answers[outcome.uid].append(outcome.token)
            if len(answers[outcome.uid]) == ANSWER_TOKENS:
                batch.remove(outcome.uid)


@pytest.fixture(scope="module", params=list(KINDS))
def joins(request, tmp_path_factory) -> Joins:
    make, kv = KINDS[request.param]
    return Joins(make, kv, tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("origin", ORIGINS[1:])
def test_caches_restored_for_a_request_have_the_classes_of_a_new_requests_caches(joins, origin):
    new, restored = (joins.restored(joins.prompts[0], each)[0] for each in ("new", origin))
    assert [type(cache) for cache in restored] == [type(cache) for cache in new]


def test_requests_that_join_a_batch_at_any_step_get_the_same_answers_as_when_they_run_alone(joins):
    for first, second in itertools.product(ORIGINS, ORIGINS):
        answers = joins.answers([(0, first, 0), (1, second, 3)])
        assert answers == joins.alone, f"{second} joined {first}"


@settings(max_examples=5, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from(ORIGINS), st.integers(0, 9)), min_size=3, max_size=6
    )
)
def test_several_requests_that_join_one_batch_at_any_step_get_the_same_answers_as_when_each_runs_alone(
    joins, requests
):
    assert joins.answers(requests) == [joins.alone[number] for number, _, _ in requests]
