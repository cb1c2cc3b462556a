from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import Figure, percentile, read, to_line, write
from benchmarks.scenario import Subjects, table


def figure(row: str = "serving/tokens_per_s/4", subject: str = "vestal", value: float = 42.1) -> Figure:
    return Figure(row, subject, value, "tok/s", "higher", round=1, at=1_800_000_000)


def test_benchmark_figure_is_written_as_one_json_line_with_row_subject_value_unit_and_round():
    stream = io.StringIO()
    write(stream, figure())
    assert json.loads(stream.getvalue()) == {
        "row": "serving/tokens_per_s/4",
        "subject": "vestal",
        "value": 42.1,
        "unit": "tok/s",
        "better": "higher",
        "round": 1,
        "at": 1_800_000_000,
    }


def test_written_figures_and_failures_of_a_benchmark_are_read_back_unchanged(tmp_path: Path):
    lost = Figure("serving/tokens_per_s/4", "vllm-mlx", failed="It ended with 1: no module\u2028named “mlx”")
    file = tmp_path / "figures.jsonl"
    file.write_text(to_line(figure()) + to_line(lost), encoding="utf-8")
    assert read(file) == [figure(), lost]


def test_half_written_last_line_of_a_figures_file_is_ignored(tmp_path: Path):
    file = tmp_path / "figures.jsonl"
    file.write_text(to_line(figure()) + to_line(figure())[:30], encoding="utf-8")
    assert read(file) == [figure()]


def test_invalid_line_of_a_figures_file_raises_value_error_with_its_line_number(tmp_path: Path):
    file = tmp_path / "figures.jsonl"
    file.write_text(to_line(figure()) + '{"row": "x"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        read(file)


def test_benchmark_figure_with_neither_value_nor_failure_is_refused():
    with pytest.raises(ValueError, match="either"):
        Figure("serving/memory", "vestal")


def test_program_missing_from_a_comparison_is_reported_once_on_stderr(capsys: pytest.CaptureFixture[str]):
    subjects = Subjects()
    subjects.skip("monit", "It is not installed.")
    subjects.skip("monit", "It is not installed.")
    assert subjects.skipped == {"monit": "It is not installed."}
    assert capsys.readouterr().err.count("monit") == 1


def test_table_of_figures_shows_the_median_of_each_row_and_the_reason_for_a_failure():
    lost = Figure("serving/tokens_per_s/4", "vllm-mlx", failed="It ended with 1.")
    shown = table([figure(value=1), figure(value=30), figure(value=40), lost])
    assert "30" in shown.splitlines()[1].split() and "It ended with 1." in shown


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([0.5, 0.99, 1.0]))
def test_percentile_is_the_smallest_value_that_covers_the_requested_share_of_values(
    values: list[float], share: float
):
    got = percentile(values, share)
    assert got in values
    assert sum(value <= got for value in values) >= share * len(values)
    assert sum(value < got for value in values) < share * len(values)


def test_percentile_of_an_empty_list_raises_value_error():
    with pytest.raises(ValueError):
        percentile([], 0.5)
