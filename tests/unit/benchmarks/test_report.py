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


def test_row_has_the_median_and_the_spread_of_its_rounds():
    cell = only_row(speeds("vestal", 10, 30, 11)).cells["vestal"]
    assert cell.median == 11 and cell.spread == (10, 30)


def test_round_that_was_measured_twice_counts_once():
    again = [Figure(SPEED, "vestal", 99.0, "tok/s", round=2)]
    assert only_row(speeds("vestal", 10, 30) + again).cells["vestal"].values == {1: 10, 2: 99}


def test_ratio_is_the_median_of_the_ratios_within_the_rounds():
    """A slow machine slows both in that round; the medians alone would compare different rounds."""
    row = only_row(speeds("vestal", 10, 40, 21) + speeds("peer", 5, 20, 20))
    found = compare(row)
    assert found is not None and found.ratio == 2 and found.won and not found.lost


def test_less_is_better_for_seconds():
    row = only_row(
        speeds("vestal", 2, row=SECONDS, better="lower") + speeds("peer", 1, row=SECONDS, better="lower")
    )
    found = compare(row)
    assert found is not None and found.ratio == 0.5 and found.lost


def test_best_peer_is_compared_and_our_own_variants_are_no_peers():
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
def test_nothing_lost_against_something_lost_has_no_ratio_and_a_winner(
    ours: int, theirs: int, won: bool, lost: bool
):
    row = only_row(speeds("vestal", ours, better="lower") + speeds("peer", theirs, better="lower"))
    found = compare(row)
    assert found is not None and (found.ratio, found.won, found.lost) == (None, won, lost)


def test_failure_of_vestal_beside_a_peer_with_a_figure_is_a_lost_row():
    found = compare(only_row([Figure(SPEED, "vestal", failed="It died."), *speeds("peer", 5)]))
    assert found is not None and found.lost


def test_row_without_a_peer_is_not_compared():
    assert compare(only_row(speeds("vestal", 10))) is None
    assert subjects_of(rows_of(speeds("peer", 1) + speeds("vestal", 1))) == ["vestal", "peer"]


def test_table_shows_median_spread_ratio_and_the_reason_of_a_lost_row():
    rows = rows_of(speeds("vestal", 10, 12, 11) + speeds("llama-cpp-python", 22, 24, 22))
    table = table_of(rows, [Reason("serving/tokens_per_s/*", "Its kernels are its own.", "llama*")])
    assert "| 11 (10–12) | 22 (22–24) | **lost: 0.50 × llama-cpp-python** |" in table
    assert f"- `{SPEED}` is lost to llama-cpp-python: Its kernels are its own." in table


def test_lost_row_without_a_reason_is_named():
    rows = rows_of(speeds("vestal", 10) + speeds("ollama", 22))
    assert lost_without_reason(rows, []) == [SPEED]
    assert lost_without_reason(rows, [Reason(SPEED, "because", against="llama*")]) == [SPEED]
    assert lost_without_reason(rows, [Reason("serving/*", "because")]) == []


def test_last_words_of_a_dead_peer_are_below_the_table_once_with_all_of_their_rows():
    died = "It died. vllm-mlx ended with 1. Its log ends: No module named `mlx`"
    figures = [Figure(f"serving/tokens_per_s/{n}", "vllm-mlx", failed=died) for n in (1, 4, 8)]
    table = table_of(rows_of(speeds("vestal", 10) + figures), [])
    assert table.count("No module named 'mlx'") == 1 and f"`{SPEED}` and 2 more" in table
    assert "| failed | no peer has a figure |" in table


def test_run_shows_machine_versions_missing_peers_and_what_is_not_complete():
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


def test_scenario_with_a_table_of_its_own_is_shown_by_it():
    figures = [Figure("faults/engine_kill/lost", "vestal", 0.0, "requests", "lower", scenario="faults")]
    text = run_markdown(
        Stored("full-1", figures, {}, {}), {}, [], {"faults": lambda found: f"{len(found)} faults\n"}
    )
    assert "1 faults" in text and "| row |" not in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (4.0, "4"), (1234.5, "1,234"), (42.13, "42.1"), (1.234, "1.23"), (0.01234, "0.0123")],
)
def test_number_has_about_three_digits(value: float, shown: str):
    assert number(value) == shown


def test_first_fitting_reason_counts():
    reasons = [Reason("a/*", "first  \n line", "x"), Reason("*", "second")]
    assert reason_for(reasons, "a/1", "x") == "first line" and reason_for(reasons, "a/1", "y") == "second"
    assert reason_for(reasons[:1], "b", "x") is None


# --- the charts ---


def test_chart_is_well_formed_and_its_bars_are_as_long_as_their_values():
    bars = [Bar("vestal", 10, "10", (8, 12)), Bar("a <peer> & co", 5, "5"), Bar("dead", None, "failed")]
    svg = ElementTree.fromstring(chart("Speed", 'more "is" better', [Group("1 stream", bars)]))
    widths = [float(each.attrib["width"]) for each in svg.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths[0] == pytest.approx(2 * widths[1], abs=0.2) and len(widths) == 2
    assert "a <peer> & co" in "".join(svg.itertext()) and "failed" in "".join(svg.itertext())


def test_chart_is_readable_on_light_and_dark_pages():
    assert "prefers-color-scheme:dark" in chart("t", "s", [Group("g", [Bar("vestal", 1, "1")])])


def test_run_without_figures_of_a_chart_has_no_such_chart():
    assert list(svg_files(speeds("vestal", 10) + speeds("peer", 5))) == ["tokens_per_s.svg"]


def test_readme_shows_its_charts_with_their_values_in_words():
    figures = [
        Figure(KILLED.groups[0][1], "vestal", 1.7, "s", "lower"),
        Figure(KILLED.noted, "vestal", 0.0, "requests", "lower"),
    ]
    block = readme_block(figures)
    assert "vestal 1.70, 0 of 4 lost" in block and "benchmarks/results/plots/killed.svg" in block


def test_only_the_block_of_the_readme_is_replaced():
    readme = f"# Vestal\n{BEGIN}\nold\n{END}\nmore\n"
    replaced = publish.with_block(readme, f"{BEGIN}\nnew\n{END}")
    assert replaced == f"# Vestal\n{BEGIN}\nnew\n{END}\nmore\n"
    with pytest.raises(ValueError, match="README"):
        publish.with_block("# Vestal", "")


# --- what is published ---


def test_published_results_plots_and_readme_are_what_the_stored_figures_give():
    made, _ = publish.published(publish.published_runs())
    assert publish.out_of_date(made) == [], "run `python -m benchmarks.report publish RUN`"


def test_each_published_lost_row_has_its_reason():
    _, lacking = publish.published(publish.published_runs())
    assert lacking == [], "add the reasons to benchmarks/report/reasons.yaml"


def test_reasons_are_whole_sentences():
    assert all(reason.because.strip().endswith(".") for reason in load())
