"""What log lines mean, of which hour they are, and what a lack of memory is not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from host_agent.doctor.evidence.log_signs import Cause, Seen, recognize, time_of
from host_agent.doctor.memory import metal_contention, metal_out_of_memory, metal_signs

LOGS = Path(__file__).resolve().parents[3] / "recorded" / "logs"
THEN = datetime.fromisoformat("2026-04-14T14:42:26-03:00").timestamp()


def seen(name: str, since: float = THEN - 3600) -> list[Seen]:
    lines = (LOGS / name).read_text().splitlines()
    return recognize(lines, written_at=THEN + 60, since=since)


def test_recognize_of_ollama_without_memory_names_it_each_time():
    found = seen("ollama_metal_memory.log")
    assert {sign.cause for sign in found} == {Cause.OUT_OF_MEMORY}
    assert "llama runner process has terminated" in found[-1].words
    assert found[-1].at == THEN


def test_recognize_of_shaders_that_do_not_compile_calls_it_no_lack_of_memory():
    # "failed to allocate context" and "llama runner process has terminated" follow there too (ollama 15862).
    assert {sign.cause for sign in seen("ollama_metal_library.log")} == {Cause.LIBRARY}


def test_recognize_of_mlx_without_its_compiler_names_the_contention():
    found = seen("mlx_compiler.log")
    assert [sign.cause for sign in found] == [Cause.CONTENTION] * 2
    assert found[0].at == 1776188541.2, "a line without a time has that of the line before"


def test_recognize_of_mlx_without_memory_tells_bytes_from_buffers():
    assert [sign.cause for sign in seen("mlx_memory.log")] == [Cause.OUT_OF_MEMORY, Cause.TOO_MANY_BUFFERS]


@pytest.mark.parametrize("name", ["ollama_metal_memory.log", "mlx_compiler.log", "mlx_memory.log"])
def test_recognize_of_old_lines_finds_nothing(name: str):
    assert seen(name, since=THEN + 3600) == []


def test_recognize_of_a_log_without_times_goes_by_its_last_writing():
    lines = ["error: failed to allocate context"]
    assert recognize(lines, written_at=100.0, since=50.0) == [Seen(Cause.OUT_OF_MEMORY, 100.0, lines[0])]
    assert recognize(lines, written_at=100.0, since=150.0) == []


def test_recognize_of_a_cut_beginning_takes_it_for_as_old_as_the_first_time():
    lines = ["Reentrancy avoided", "time=2026-04-14T14:42:26-03:00 level=INFO msg=later"]
    assert recognize(lines, written_at=THEN + 9999, since=THEN + 1) == []


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
def test_time_of_every_log_that_is_read(line: str, at: float | None):
    assert time_of(line) == at


def test_findings_name_the_log_the_last_line_and_the_remedy():
    (found,) = metal_signs.findings("metal", metal_contention.CAUSES, "engine.log", seen("mlx_compiler.log"))
    assert (found.level, found.name) == ("fault", "metal")
    assert "SMART_WORKER_MAX_CONCURRENT" in found.remedy
    assert "2 lines" in found.evidence and "engine.log" in found.evidence and "MTLCompiler" in found.evidence


def test_findings_of_too_many_buffers_ask_for_a_new_process():
    found = list(metal_signs.findings("m", metal_out_of_memory.CAUSES, "engine.log", seen("mlx_memory.log")))
    assert len(found) == 2
    assert "only a new engine process helps" in found[1].remedy
