"""The causes that log lines name, and how old the lines are."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from host_agent.doctor.evidence.log_patterns import LoggedCause, LogMatch, find_matches, time_of
from host_agent.doctor.memory import metal

LOGS = Path(__file__).resolve().parents[3] / "recorded" / "logs"
THEN = datetime.fromisoformat("2026-04-14T14:42:26-03:00").timestamp()


def matches(name: str, since: float = THEN - 3600) -> list[LogMatch]:
    lines = (LOGS / name).read_text().splitlines()
    return find_matches(lines, written_at=THEN + 60, since=since)


def test_log_patterns_recognize_metal_out_of_memory_in_ollamas_log():
    found = matches("ollama_metal_memory.log")
    assert {match.cause for match in found} == {LoggedCause.OUT_OF_MEMORY}
    assert "llama runner process has terminated" in found[-1].excerpt
    assert found[-1].at == THEN


@pytest.mark.parametrize(
    "said",
    [
        "llama-server process has terminated: exit status 2: error: Insufficient Memory (00000008)",
        "llama-server reported out-of-memory during startup: failed to allocate buffer for kv cache",
    ],
)
def test_log_patterns_recognize_out_of_memory_messages_of_ollama_since_0_30(said: str):
    """Since its runner is llama-server, Ollama's log no longer says "llama runner process has terminated"."""
    line = (
        f'time=2026-08-21T14:42:26.001-03:00 level=INFO source=sched.go:641 msg="Load failed" error="{said}"'
    )
    (found,) = find_matches([line], written_at=THEN, since=0)
    assert (found.cause, said[:30] in found.excerpt) == (LoggedCause.OUT_OF_MEMORY, True)


def test_log_patterns_do_not_mistake_a_shader_that_does_not_compile_for_out_of_memory():
    # "failed to allocate context" and "llama runner process has terminated" follow there too (ollama 15862).
    assert {match.cause for match in matches("ollama_metal_library.log")} == {LoggedCause.LIBRARY}


def test_log_patterns_recognize_contention_for_the_metal_compiler_in_an_mlx_log():
    found = matches("mlx_compiler.log")
    assert [match.cause for match in found] == [LoggedCause.CONTENTION] * 2
    assert found[0].at == 1776188541.2, "a line without a time has that of the line before"


def test_log_patterns_distinguish_out_of_memory_from_too_many_buffers_in_an_mlx_log():
    assert [match.cause for match in matches("mlx_memory.log")] == [
        LoggedCause.OUT_OF_MEMORY,
        LoggedCause.TOO_MANY_BUFFERS,
    ]


@pytest.mark.parametrize("name", ["ollama_metal_memory.log", "mlx_compiler.log", "mlx_memory.log"])
def test_log_patterns_ignore_lines_older_than_the_requested_time(name: str):
    assert matches(name, since=THEN + 3600) == []


def test_lines_of_a_log_without_times_are_dated_by_the_last_write_to_the_log():
    lines = ["error: failed to allocate context"]
    assert find_matches(lines, written_at=100.0, since=50.0) == [
        LogMatch(LoggedCause.OUT_OF_MEMORY, 100.0, lines[0])
    ]
    assert find_matches(lines, written_at=100.0, since=150.0) == []


def test_log_patterns_date_lines_before_the_first_time_in_a_log_by_that_time():
    lines = ["Reentrancy avoided", "time=2026-04-14T14:42:26-03:00 level=INFO msg=later"]
    assert find_matches(lines, written_at=THEN + 9999, since=THEN + 1) == []


@pytest.mark.parametrize(
    ("line", "at"),
    [
        ('{"ts": 1776188541.2, "seq": 1}', 1776188541.2),
        ("time=2026-04-14T14:42:26.001-03:00 level=INFO", THEN),
        ("2026-04-14T17:42:26+0000 host ollama[12]: text", THEN),
        ("2026-04-14T17:42:26Z text", THEN),
        ("[GIN] 2026/04/14 - 14:42:26 | 200 |", datetime(2026, 4, 14, 14, 42, 26).timestamp()),
        ("2026-04-14 14:42:26,848 ERROR vestal: text", datetime(2026, 4, 14, 14, 42, 26).timestamp()),
        ("2026/04/14 14:42:26 routes.go:1259: INFO", datetime(2026, 4, 14, 14, 42, 26).timestamp()),
        ("ggml_metal_init: error", None),
        ("2026-99-99 14:42:26 no date", None),
        ("x" * 90 + " 2026-04-14 14:42:26", None),
    ],
)
def test_time_of_a_log_line_is_read_in_the_format_of_every_log(line: str, at: float | None):
    assert time_of(line) == at


def test_doctor_reports_a_known_cause_with_the_log_name_and_the_last_matching_line_and_the_remedy():
    (found,) = metal.assess_log("metal", metal.CONTENTION_CAUSES, "engine.log", matches("mlx_compiler.log"))
    assert (found.level, found.name) == ("fault", "metal")
    assert "SMART_WORKER_MAX_CONCURRENT" in found.remedy
    assert "2 lines" in found.evidence and "engine.log" in found.evidence and "MTLCompiler" in found.evidence


def test_doctor_advises_a_new_engine_process_if_a_log_reports_too_many_metal_buffers():
    found = list(metal.assess_log("m", metal.OUT_OF_MEMORY_CAUSES, "engine.log", matches("mlx_memory.log")))
    assert len(found) == 2
    assert "Only a new engine process helps" in found[1].remedy
