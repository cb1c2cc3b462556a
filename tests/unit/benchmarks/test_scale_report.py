"""docs/scale.md states what the simulation gives with the current parameters and code."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.scale import report
from benchmarks.scale.__main__ import FIGURES
from benchmarks.scale.experiments import served, worked
from benchmarks.scale.parameters import FILE, read_parameters

PARAMETERS = read_parameters()
RECORDED = json.loads(FIGURES.read_text(encoding="utf-8"))
REMEDY = "run `python -m benchmarks.scale`"


def test_recorded_figures_of_the_scale_simulation_match_the_current_parameters():
    assert RECORDED["parameters"] == PARAMETERS.digest, REMEDY


@pytest.mark.parametrize(
    ("routing", "per_hour"), [("Vestal", 25), ("round robin", 50), ("Vestal, one entry", 25)]
)
def test_scale_simulation_of_requests_reproduces_its_recorded_figures(routing: str, per_hour: int):
    assert asdict(served(PARAMETERS, 10, routing, per_hour)) in RECORDED["served"], REMEDY


def test_scale_simulation_of_workers_reproduces_its_recorded_figures():
    assert asdict(worked(PARAMETERS, 10)) in RECORDED["worked"], REMEDY


def test_scale_page_and_plots_are_up_to_date_with_the_recorded_figures():
    text = report.PAGE.read_text(encoding="utf-8")
    assert report.page(text, report.tables(RECORDED, PARAMETERS)) == text, REMEDY
    for name, drawn in report.plots(RECORDED).items():
        assert (report.PLOTS / name).read_text(encoding="utf-8") == drawn, REMEDY


def test_scale_page_without_the_marker_for_a_table_is_refused():
    with pytest.raises(ValueError, match="routing"):
        report.page("# Empty", {"routing": "| |"})


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("  slots: {value: 5,", "  slots: {worth: 5,", "engine.slots"),
        ("  slots: {", "  places: {", "places"),
        ('source: "mlx.max_running, the default"', 'source: ""', "source"),
    ],
)
def test_scale_parameter_that_is_unknown_or_lacks_a_source_is_refused_with_an_error_that_names_the_key(
    tmp_path: Path, before: str, after: str, message: str
):
    other = tmp_path / "parameters.yaml"
    text = FILE.read_text(encoding="utf-8")
    assert before in text
    other.write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_parameters(other)
