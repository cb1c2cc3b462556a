from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import pytest

from benchmarks.figures import Figure
from benchmarks.report import publish
from benchmarks.report.bars import Bar, Group, chart
from benchmarks.report.markdown import Stored, lost_without_reason, number, run_markdown, table_of
from benchmarks.report.plots import BEGIN, END, KILLED, readme_block, svg_files
from benchmarks.report.reasons import Reason, load, reason_for
from benchmarks.report.summary import compare, rows_of, subjects_of

SPEED, SECONDS = "serving/tokens_per_s/1", "serving/first_token_s/1700/cold"


def speeds(subject: str, *values: float, row: str = SPEED, better: str = "higher") -> list[Figure]:
    unit = "tok/s" if better == "higher" else "s"
    return [
        Figure(row, subject, value, unit, better, round=n)  # type: ignore[arg-type]
        for n, value in enumerate(values, 1)
    ]


def only_row(figures: Sequence[Figure]):
    (row,) = rows_of(figures)
    return row


def test_report_row_has_the_median_and_the_spread_of_its_rounds():
    cell = only_row(speeds("vestal", 10, 30, 11)).cells["vestal"]
    assert cell.median == 11 and cell.spread == (10, 30)


def test_report_row_with_a_round_measured_twice_counts_the_later_value_only():
    again = [Figure(SPEED, "vestal", 99.0, "tok/s", round=2)]
    assert only_row(speeds("vestal", 10, 30) + again).cells["vestal"].values == {1: 10, 2: 99}


def test_report_ratio_is_the_median_of_the_ratios_within_each_round():
    """A slow moment slows both servers in that round; medians alone would compare different rounds."""
    row = only_row(speeds("vestal", 10, 40, 21) + speeds("peer", 5, 20, 20))
    found = compare(row)
    assert found is not None and found.ratio == 2 and found.won and not found.lost


def test_report_ratio_of_seconds_counts_fewer_as_better():
    row = only_row(
        speeds("vestal", 2, row=SECONDS, better="lower") + speeds("peer", 1, row=SECONDS, better="lower")
    )
    found = compare(row)
    assert found is not None and found.ratio == 0.5 and found.lost


def test_report_compares_with_the_best_competitor_and_never_with_variants_of_vestal():
    found = compare(
        only_row(
            speeds("vestal", 10)
            + speeds("vestal without drafts", 50)
            + speeds("vestal+draft", 60)
            + speeds("slow", 5)
            + speeds("fast", 20)
        )
    )
    assert found is not None and found.peer == "fast" and found.ratio == 0.5


@pytest.mark.parametrize(
    ("ours", "theirs", "won", "lost"), [(0, 4, True, False), (4, 0, False, True), (0, 0, False, False)]
)
def test_report_row_with_a_zero_has_a_winner_but_no_ratio(ours: int, theirs: int, won: bool, lost: bool):
    row = only_row(speeds("vestal", ours, better="lower") + speeds("peer", theirs, better="lower"))
    found = compare(row)
    assert found is not None and (found.ratio, found.won, found.lost) == (None, won, lost)


def test_report_counts_a_row_where_vestal_failed_but_a_competitor_did_not_as_lost_by_vestal():
    found = compare(only_row([Figure(SPEED, "vestal", failed="It died."), *speeds("peer", 5)]))
    assert found is not None and found.lost


def test_report_row_without_a_competitor_is_not_compared():
    assert compare(only_row(speeds("vestal", 10))) is None
    assert subjects_of(rows_of(speeds("peer", 1) + speeds("vestal", 1))) == ["vestal", "peer"]


def test_report_table_shows_median_spread_ratio_and_the_reason_for_a_lost_row():
    rows = rows_of(speeds("vestal", 10, 12, 11) + speeds("llama-cpp-python", 22, 24, 22))
    table = table_of(rows, [Reason("serving/tokens_per_s/*", "Its kernels are its own.", "llama*")])
    assert "| 11 (10–12) | 22 (22–24) | **lost: 0.50 × llama-cpp-python** |" in table
    assert f"- `{SPEED}` is lost to llama-cpp-python: Its kernels are its own." in table


def test_report_lists_every_row_that_vestal_lost_to_a_competitor_and_that_has_no_written_reason():
    rows = rows_of(speeds("vestal", 10) + speeds("ollama", 22))
    assert lost_without_reason(rows, []) == [SPEED]
    assert lost_without_reason(rows, [Reason(SPEED, "because", against="llama*")]) == [SPEED]
    assert lost_without_reason(rows, [Reason("serving/*", "because")]) == []


def test_report_quotes_the_log_of_a_dead_competitor_once_for_all_of_its_rows():
    died = "It died. vllm-mlx ended with 1. Its log ends: No module named `mlx`"
    figures = [Figure(f"serving/tokens_per_s/{n}", "vllm-mlx", failed=died) for n in (1, 4, 8)]
    table = table_of(rows_of(speeds("vestal", 10) + figures), [])
    assert table.count("No module named 'mlx'") == 1 and f"`{SPEED}` and 2 more" in table
    assert "| failed | no peer has a figure |" in table


def test_run_report_shows_the_machine_and_versions_and_missing_competitors_and_unfinished_scenarios():
    machine = {
        "processor": "M4",
        "cores": 10,
        "vestal": "abc1234",
        "skipped": {"monit": "It is not installed."},
    }
    figures = [Figure(SPEED, "vestal", 10.0, "tok/s", scenario="throughput")]
    run = Stored("full-1", figures, machine, {"throughput": "out of time", "pace": "failed"})
    text = run_markdown(run, {"throughput": "tokens a second"}, [], {})
    for part in (
        "M4, 10 cores",
        "Vestal abc1234",
        "monit was left out: It is not installed.",
        "Tokens a second.",
    ):
        assert part in text
    assert "not complete: out of time" in text and "pace has no figures: failed" in text


def test_report_shows_a_scenario_by_its_own_table_function_if_it_has_one():
    figures = [Figure("faults/engine_kill/lost", "vestal", 0.0, "requests", "lower", scenario="faults")]
    text = run_markdown(
        Stored("full-1", figures, {}, {}), {}, [], {"faults": lambda found: f"{len(found)} faults\n"}
    )
    assert "1 faults" in text and "| row |" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (4.0, "4"), (1234.5, "1,234"), (42.13, "42.1"), (1.234, "1.23"), (0.01234, "0.0123")],
)
def test_report_shows_numbers_with_about_three_significant_digits(value: float, shown: str):
    assert number(value) == shown


def test_report_explains_a_row_that_vestal_lost_by_the_first_reason_whose_pattern_matches_it():
    reasons = [Reason("a/*", "first  \n line", "x"), Reason("*", "second")]
    assert reason_for(reasons, "a/1", "x") == "first line" and reason_for(reasons, "a/1", "y") == "second"
    assert reason_for(reasons[:1], "b", "x") is None


# --- the charts ---


def test_chart_is_well_formed_svg_with_bars_proportional_to_their_values():
    bars = [Bar("vestal", 10, "10", (8, 12)), Bar("a <peer> & co", 5, "5"), Bar("dead", None, "failed")]
    svg = ElementTree.fromstring(chart("Speed", 'more "is" better', [Group("1 stream", bars)]))
    widths = [float(each.attrib["width"]) for each in svg.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2) and len(widths) == 2
    assert "a <peer> & co" in "".join(svg.itertext()) and "failed" in "".join(svg.itertext())


def test_chart_has_colors_for_light_and_dark_pages():
    assert "prefers-color-scheme:dark" in chart("t", "s", [Group("g", [Bar("vestal", 1, "1")])])


def test_report_omits_charts_for_which_a_run_has_no_figures():
    assert list(svg_files(speeds("vestal", 10) + speeds("peer", 5))) == ["tokens_per_s.svg"]


def test_readme_block_shows_its_charts_with_their_values_as_alternative_text():
    figures = [
        Figure(KILLED.groups[0][1], "vestal", 1.7, "s", "lower"),
        Figure(KILLED.noted, "vestal", 0.0, "requests", "lower"),
    ]
    block = readme_block(figures)
    assert "vestal 1.70, 0 of 4 lost" in block and "benchmarks/results/plots/killed.svg" in block


def test_publishing_replaces_only_the_marked_block_of_the_readme():
    readme = f"# Vestal\n{BEGIN}\nold\n{END}\nmore\n"
    replaced = publish.with_block(readme, f"{BEGIN}\nnew\n{END}")
    assert replaced == f"# Vestal\n{BEGIN}\nnew\n{END}\nmore\n"
    with pytest.raises(ValueError, match="README"):
        publish.with_block("# Vestal", "")


# --- what is published ---


def test_published_results_plots_and_readme_are_up_to_date_with_the_stored_figures():
    made, _ = publish.published(publish.published_runs())
    assert publish.out_of_date(made) == [], "run `python -m benchmarks.report publish RUN`"


def test_every_published_row_that_vestal_lost_has_a_reason():
    _, lacking = publish.published(publish.published_runs())
    assert lacking == [], "add the reasons to benchmarks/report/reasons.yaml"


def test_written_reasons_why_vestal_is_worse_than_a_competitor_are_whole_sentences():
    assert all(reason.because.strip().endswith(".") for reason in load())


def test_published_charts_show_each_scenario_from_the_newest_run_that_measured_it():
    def run(name: str, *scenarios: str) -> Stored:
        return Stored(
            name, [Figure(f"{name}/{each}", "vestal", 1.0, scenario=each) for each in scenarios], {}, {}
        )

    shown = publish.newest_figures([run("first", "killed", "throughput"), run("second", "throughput")])
    assert [figure.row for figure in shown] == ["first/killed", "second/throughput"]
