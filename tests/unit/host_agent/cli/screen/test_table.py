"""Tables for a pipe: plain text, one line for each line of a row."""

from __future__ import annotations

import pytest

from host_agent.cli.table import Column, print_table


def test_print_table_for_a_pipe_aligns_columns_and_wraps_nothing(capsys: pytest.CaptureFixture[str]):
    long = "word " * 100
    print_table([Column("name"), Column("count", align="right"), Column("text", wraps=True)], [
        ("a", "1", long),
        ("longer", ("200", "red"), "short"),
    ])  # fmt: skip
    assert (
        capsys.readouterr().out
        == f"name    count  text\na           1  {long.rstrip()}\nlonger    200  short\n"
    )


def test_print_table_keeps_brackets_that_look_like_markup(capsys: pytest.CaptureFixture[str]):
    """The detail of a service may be a log line such as this one of MLX."""
    detail = "[metal::malloc] Attempting to allocate 1 byte, [bold]see[/bold] :warning:"
    print_table([Column(), Column()], [("mlx_engine", detail)])
    assert capsys.readouterr().out == f"mlx_engine  {detail}\n"


def test_print_table_indents_further_lines_of_a_text_below_its_column(capsys: pytest.CaptureFixture[str]):
    print_table([Column(width=4), Column(wraps=True)], [("name", "first\n  second")])
    assert capsys.readouterr().out == "name  first\n        second\n"
