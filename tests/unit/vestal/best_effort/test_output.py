"""Output that never raises: what cannot be written is dropped and counted; a deleted log is created again."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vestal.best_effort.failures import WriteFailures
from vestal.best_effort.output import BestEffortOutput, open_text, write_line


@pytest.fixture
def failures() -> WriteFailures:
    return WriteFailures(wall=lambda: 100.0)


def _log(path: Path, failures: WriteFailures) -> tuple[int, BestEffortOutput]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return descriptor, BestEffortOutput(descriptor, "part", failures)


@pytest.fixture
def broken_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_output_that_cannot_be_written_is_dropped_and_counted_and_raises_nothing(
    broken_pipe: int, failures: WriteFailures
):
    stream = open_text(BestEffortOutput(broken_pipe, "part", failures))
    print("one", file=stream)
    print("two\nthree", file=stream)
    stream.close()
    os.close(broken_pipe)
    assert failures.as_json() == {"log": {"failed": 3, "failing_since": 100.0, "error": "Broken pipe"}}


def test_first_log_write_after_a_failure_is_preceded_by_a_report_of_the_dropped_lines(
    tmp_path: Path, failures: WriteFailures
):
    descriptor, output = _log(tmp_path / "a.log", failures)
    read_only = os.open(tmp_path / "a.log", os.O_RDONLY)
    kept = os.dup(descriptor)
    os.dup2(read_only, descriptor)  # writing raises EBADF now
    output.write(b"lost\n")
    os.dup2(kept, descriptor)
    output.write(b"written\n")
    note, line = (tmp_path / "a.log").read_text().splitlines()
    assert line == "written"
    event = json.loads(note)
    assert (event["component"], event["event"], event["lines"]) == ("part", "log_lines_dropped", 1)
    assert failures.as_json()["log"]["failing_since"] is None
    assert failures.count("log") == 1
    for number in (read_only, kept, descriptor):
        os.close(number)


def test_write_failure_of_an_idle_process_ends_once_output_can_be_written_again(
    tmp_path: Path, failures: WriteFailures
):
    descriptor, output = _log(tmp_path / "a.log", failures)
    kept = os.dup(descriptor)
    os.dup2(os.open(tmp_path / "a.log", os.O_RDONLY), descriptor)  # writing raises EBADF now
    output.write(b"lost\n")
    failures.retries.append(output.retry)
    assert failures.as_json()["log"]["failing_since"] == 100.0
    os.dup2(kept, descriptor)
    assert failures.as_json()["log"]["failing_since"] is None
    assert "log_lines_dropped" in (tmp_path / "a.log").read_text()


def test_deleted_log_file_is_created_again_under_its_name(tmp_path: Path, failures: WriteFailures):
    """Deleting a log really frees its space, and later lines can be read."""
    path = tmp_path / "a.log"
    descriptor, output = _log(path, failures)
    output.write(b"before\n")
    path.unlink()
    output.write(b"after\n")
    assert path.read_text() == "after\n"
    assert os.fstat(descriptor).st_nlink == 1
    os.close(descriptor)


# The size limit makes the log's disk "full" in the middle of a line, and is then taken away.
FULL_IN_THE_MIDDLE = """
import resource, signal, sys
from vestal.best_effort import output
from vestal.best_effort.failures import FAILURES
output.protect("part")
print("first line")
resource.setrlimit(resource.RLIMIT_FSIZE, (15, resource.RLIM_INFINITY))
print("second line", flush=True)
print("third line")
assert FAILURES.count("log") == 2, FAILURES.as_json()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("fourth line")
"""


def test_log_truncated_in_mid_line_by_a_full_disk_continues_on_a_new_line(tmp_path: Path, repo: Path):
    path = tmp_path / "a.log"
    with path.open("ab") as log:
        command = [sys.executable, "-c", FULL_IN_THE_MIDDLE]
        code = subprocess.run(command, cwd=repo, stdout=log, stderr=subprocess.PIPE, timeout=110)
    assert code.returncode == 0, code.stderr.decode()
    first, torn, note, fourth = path.read_text().splitlines()
    assert (first, torn, fourth) == ("first line", "seco", "fourth line")
    assert json.loads(note)["lines"] == 2
    assert json.loads(note)["cause"] == "File too large"


NO_ROOM_AT_ALL = """
import logging, os, sys, warnings
from vestal.best_effort import output
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
os.dup2(1, 2)
output.protect("part")
print("x" * 100_000)
logging.warning("y")
warnings.warn("z")
sys.stdout.flush()
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
def test_program_whose_output_cannot_be_written_exits_with_0(repo: Path):
    """Python would end with exit code 120, because the buffer cannot be flushed at the end."""
    done = subprocess.run([sys.executable, "-c", NO_ROOM_AT_ALL], cwd=repo, timeout=110)
    assert done.returncode == 0


LOG_IN_ENVIRONMENT = """
import os
from pathlib import Path
from vestal.best_effort import output
output.protect("part")
print("lost")
Path(os.environ["VESTAL_LOG_FILE"]).parent.mkdir()
print("written")
"""


def test_log_file_whose_folder_was_missing_is_opened_once_the_folder_exists(tmp_path: Path, repo: Path):
    path = tmp_path / "logs" / "a.log"
    command = [sys.executable, "-c", LOG_IN_ENVIRONMENT]
    env = {**os.environ, "VESTAL_LOG_FILE": str(path)}
    subprocess.run(command, cwd=repo, env=env, stdout=subprocess.DEVNULL, check=True, timeout=110)
    assert path.read_text() == "written\n"


def test_write_line_to_a_closed_or_missing_stream_does_not_raise():
    closed = io.StringIO()
    closed.close()
    write_line(closed, "x")
    write_line(None, "x")
