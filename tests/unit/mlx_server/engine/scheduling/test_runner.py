"""Requests that wait for background jobs: ready in order as these end, and cancelled together with them."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from mlx_server.engine.scheduling.request import BackgroundJobs, Request, RequestStatus
from mlx_server.engine.scheduling.request_table import EngineRequests
from mlx_server.engine.scheduling.runners.runner import Runner
from mlx_server.protocol import Generate


class Preparing:
    """Requests of the model `m` that are PREPARING, each with one job still to do."""

    def __init__(self, *ids: str) -> None:
        self.requests = EngineRequests()
        self.runner = Runner("m", self.requests)
        self.jobs: dict[str, Future] = {id: self._add(id, "m") for id in ids}

    def _add(self, id: str, model: str) -> Future:
        request = Request(Generate(id, model, "text"))
        job: Future = Future()
        request.jobs = BackgroundJobs(grammar=job)
        self.requests.add(request)
        for status in (
            RequestStatus.TOKENIZING,
            RequestStatus.WAITING_FOR_MEMORY,
            RequestStatus.PREPARING,
        ):
            self.requests.move(request, status)
        return job

    def ready(self) -> list[str]:
        return [request.id for request in self.runner.prepared()]


def test_requests_whose_background_jobs_have_ended_are_ready_in_order_of_arrival():
    preparing = Preparing("a", "b", "c")
    assert not preparing.runner.can_step
    preparing.jobs["c"].set_result(None)
    preparing.jobs["a"].set_result(None)
    assert preparing.ready() == ["a", "c"]
    assert preparing.runner.can_step


def test_runner_of_a_model_ignores_requests_for_another_model():
    preparing = Preparing()
    preparing._add("other", "n").set_result(None)
    assert preparing.ready() == []
    assert not preparing.runner.can_step


def test_request_whose_background_job_failed_is_ready_and_its_result_raises():
    preparing = Preparing("a")
    preparing.jobs["a"].set_exception(ValueError("no"))
    (request,) = preparing.runner.prepared()
    (job,) = request.jobs.futures
    with pytest.raises(ValueError, match="no"):
        job.result()


def test_request_with_two_background_jobs_is_ready_when_both_have_ended():
    grammar: Future = Future()
    prefix: Future = Future()
    jobs = BackgroundJobs(grammar, prefix)
    grammar.set_result(None)
    assert not jobs.done
    prefix.set_result(None)
    assert jobs.done
    assert BackgroundJobs().done


def test_cancelled_background_jobs_that_have_not_begun_are_not_run():
    job: Future = Future()
    BackgroundJobs(grammar=job).cancel()
    assert job.cancelled()


def test_closed_runner_cancels_the_jobs_of_its_requests_and_finishes_the_requests():
    preparing = Preparing("a", "b")
    other = preparing._add("other", "n")
    preparing.runner.close()
    assert all(job.cancelled() for job in preparing.jobs.values())
    assert not other.cancelled()
    assert [request.id for request in preparing.requests.select(*RequestStatus)] == ["other"]
