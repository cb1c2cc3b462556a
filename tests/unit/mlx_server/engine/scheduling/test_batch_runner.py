"""A batch of texts is paused for the requests of other models, and no request loses or repeats a text."""

from __future__ import annotations

import time
from concurrent.futures import wait
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.embeddings.batches import BESIDE_ANSWERS_TOKENS, MAX_BATCH_TOKENS
from mlx_server.engine.pausable_call import pause_point
from mlx_server.engine.scheduling.request import BatchJob, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.batch_runner import PART_S, BatchRunner
from mlx_server.protocol import Embed, Embedding

LAYERS = 3


class Job:
    """Computes batches that have LAYERS layers, and records each layer: the number of its batch."""

    def __init__(self, id: str, batches: int, layer_s: float = 0.0) -> None:
        self.id, self.layers, self.limits = id, list[int](), list[int]()
        self._batches, self._layer_s = batches, layer_s

    def tokenize_slice(self) -> bool:
        return True

    def compute_batch(self, max_tokens: int) -> bool:
        number = len(self.layers) // LAYERS
        self.limits.append(max_tokens)
        for _ in range(LAYERS):
            time.sleep(self._layer_s)
            self.layers.append(number)
            pause_point()
        return number + 1 == self._batches

    def answer(self, now: float) -> Embedding:
        return Embedding(self.id, "", 1, len(self.layers))


class Runs(BatchRunner):
    """The runner of the model `m`, whose requests have the jobs that the test makes."""

    kind = "embed"

    def __init__(self) -> None:
        self.requests = EngineRequests()
        super().__init__("m", self.requests, BackgroundWorkers(lambda: None).new_tokenizer())
        self.jobs: dict[str, Job] = {}

    def _job(self, request: Request, now: float) -> BatchJob:
        return self.jobs[request.id]

    def add(self, job: Job) -> Request:
        self.jobs[job.id] = job
        request = Request(Embed(job.id, "m", ("text",)))
        self.requests.add(request)
        self.tokenize(request, 0.0)
        wait([request.tokenization])
        self.take_tokens(request)
        return request

    def turn(self, share_s: float | None = None) -> list[Any]:
        return list(self.step(lambda: 1.0, share_s))


def test_batch_alone_has_many_tokens_and_is_computed_in_parts_of_a_twentieth_of_a_second():
    runs, job = Runs(), Job("a", batches=1, layer_s=PART_S)
    runs.add(job)
    turns = 1
    while not runs.turn():
        turns += 1
    assert turns == LAYERS + 1
    assert job.limits == [MAX_BATCH_TOKENS]
    runs.close()


def test_batch_beside_answers_has_few_tokens_and_takes_no_longer_than_a_step_of_theirs():
    runs, job = Runs(), Job("a", batches=1)
    runs.add(job)
    assert runs.turn(share_s=0.0) == []
    assert job.layers == [0]  # it always gets on
    assert job.limits == [BESIDE_ANSWERS_TOKENS]
    (answer,) = runs.turn(share_s=60.0)
    assert (answer.id, job.layers) == ("a", [0] * LAYERS)
    runs.close()


def test_batches_follow_each_other_within_their_share_of_the_time():
    """Beside a long prompt, whose slices take a second, one batch of a tenth of a second was computed in
    between.
    """
    runs, first, second = Runs(), Job("a", batches=2), Job("b", batches=3)
    runs.add(first)
    runs.add(second)
    assert [answer.id for answer in runs.turn(share_s=60.0)] == ["a"]
    assert (first.layers, second.layers) == ([0] * LAYERS + [1] * LAYERS, [0] * LAYERS)
    runs.close()


def test_cancelled_request_ends_its_paused_batch_and_the_next_request_begins_its_own():
    runs, first, second = Runs(), Job("a", batches=1), Job("b", batches=1)
    request = runs.add(first)
    runs.add(second)
    runs.turn(share_s=0.0)
    runs.cancel(request, 0.0)
    (answer,) = runs.turn()
    assert (answer.id, first.layers, second.layers) == ("b", [0], [0] * LAYERS)
    runs.close()


class BatchRunnerMachine(RuleBasedStateMachine):
    """Requests arrive, are cancelled, and are computed in parts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = Runs()
        self.running: dict[str, Request] = {}
        self.batches: dict[str, int] = {}
        self.answered: list[Any] = []

    def teardown(self) -> None:
        self.runs.close()
        assert not len(self.runs.requests)

    @rule(batches=st.integers(1, 3))
    def request_arrives(self, batches: int) -> None:
        id = str(len(self.batches))
        self.batches[id] = batches
        self.running[id] = self.runs.add(Job(id, batches))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def request_is_cancelled(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        layers = list(self.runs.jobs[id].layers)
        assert self.runs.cancel(self.running.pop(id), 0.0).reason == "cancelled"
        assert self.runs.jobs[id].layers == layers

    @rule(share_s=st.sampled_from([None, 0.0, 60.0]))
    def step_is_made(self, share_s: float | None) -> None:
        for answer in self.runs.turn(share_s):
            assert isinstance(answer, Embedding)
            del self.running[answer.id]
            self.answered.append(answer.id)
            expected = [number for number in range(self.batches[answer.id]) for _ in range(LAYERS)]
            assert self.runs.jobs[answer.id].layers == expected

    @invariant()
    def requests_that_have_no_answer_run(self) -> None:
        running = {request.id for request in self.runs.requests.select(RequestStatus.RUNNING)}
        assert running == set(self.running)
        assert len(self.answered) == len(set(self.answered))

    @invariant()
    def at_most_one_request_has_a_batch_computed_in_part(self) -> None:
        partly = [id for id in self.running if len(self.runs.jobs[id].layers) % LAYERS]
        assert len(partly) <= 1


TestBatchRunner = BatchRunnerMachine.TestCase
TestBatchRunner.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
