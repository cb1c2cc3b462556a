"""What waits for the compiler: taken out as its job ends, in order of arrival, or when its client leaves."""

from concurrent.futures import Future

from mlx_server.engine.generation.detokenizer import Detokenizer
from mlx_server.engine.generation.generation import Generation
from mlx_server.engine.scheduling.preparing import Prepared, Preparing
from mlx_server.protocol import Generate


def request(id: str, preparing: Preparing) -> Future:
    """Adds one; its job, still to do."""
    job: Future = Future()
    generation = Generation(id, (1,), 9, frozenset(), Detokenizer(str), 0.0)
    preparing.add(Prepared(Generate(id, "m", "text"), generation, job))
    return job


def test_done_ones_leave_in_order_of_arrival_and_others_stay():
    preparing = Preparing()
    first, _, third = (request(id, preparing) for id in "abc")
    third.set_result(None)
    first.set_result(None)
    assert preparing.any_done
    assert [done.op.id for done in preparing.take_done()] == ["a", "c"]
    assert (preparing.ids(), preparing.any_done) == (["b"], False)


def test_removed_one_is_not_done_for_nobody():
    preparing = Preparing()
    job = request("a", preparing)
    assert preparing.remove("a") is not None
    assert job.cancelled()
    assert preparing.remove("a") is None
    assert len(preparing) == 0


def test_failed_job_raises_where_it_is_taken():
    preparing = Preparing()
    request("a", preparing).set_exception(ValueError("no"))
    (failed,) = preparing.take_done()
    (job,) = failed.jobs
    assert isinstance(job.exception(), ValueError)


def test_cleared_room_has_cancelled_all():
    preparing = Preparing()
    jobs = [request(id, preparing) for id in "ab"]
    preparing.clear()
    assert all(job.cancelled() for job in jobs)
    assert len(preparing) == 0
