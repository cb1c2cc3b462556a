"""The writing thread runs jobs in order and within bounds, and survives a job that fails."""

import threading

from mlx_server.engine.prompt_cache.disk.write_behind import WriteBehind


def test_write_behind_runs_jobs_in_order_and_flush_waits_for_them():
    writer, done = WriteBehind(10), list[int]()
    for number in range(50):
        assert writer.put(lambda number=number: done.append(number))  # type: ignore[misc]
    assert writer.flush(60.0)
    assert done == list(range(50))
    writer.close()


def test_write_behind_refuses_a_job_while_too_many_bytes_wait():
    writer, gate = WriteBehind(10), threading.Event()
    assert writer.put(lambda: _wait(gate), 6)
    assert not writer.put(lambda: None, 5)
    assert writer.put(lambda: None, 4)
    assert not writer.flush(0.01)
    gate.set()
    assert writer.flush(60.0)
    assert writer.put(lambda: None, 10)
    writer.close()


def test_write_behind_logs_a_failing_job_and_runs_the_next_one(capfd):
    writer, done = WriteBehind(10), list[int]()

    def fails() -> None:
        raise MemoryError("no room")

    writer.put(fails, 10)
    assert writer.flush(60.0)
    assert writer.put(lambda: done.append(1), 10)
    assert writer.flush(60.0)
    assert done == [1]
    assert "no room" in capfd.readouterr().err
    writer.close()


def _wait(gate: threading.Event) -> None:
    gate.wait(60.0)
