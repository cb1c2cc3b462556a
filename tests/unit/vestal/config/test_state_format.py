"""Which state folders a program uses, migrates and refuses."""

from __future__ import annotations

import pytest

from vestal.config import ConfigError, defaults_at_home, load, state_format
from vestal.config.state_format import CURRENT, FormatJudgement


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (None, FormatJudgement(migrate_from=0)),
        ("", FormatJudgement(migrate_from=0)),
        ("0\n", FormatJudgement(migrate_from=0)),
        (f"{CURRENT}\n", FormatJudgement()),
        (f" {CURRENT} ", FormatJudgement()),
    ],
)
def test_vestal_home_of_this_or_an_older_format_is_used(text, verdict):
    assert state_format.judge(text, "/h") == verdict


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (str(CURRENT + 1), "was written by a newer Vestal"),
        ("9" * 5000, "holds no number"),
        ("one", "holds no number"),
        ("1 2", "holds no number"),
        ("-1", "holds no number"),
        ("²", "holds no number"),
    ],
)
def test_vestal_home_of_a_newer_or_unknown_format_is_refused_with_the_remedy(text, why):
    verdict = state_format.judge(text, "/h")
    assert why in verdict.refusal
    assert "set VESTAL_HOME" in verdict.refusal
    assert verdict.refusal.endswith(".")
    assert verdict.migrate_from is None


def test_vestal_home_without_a_format_number_gets_one_and_keeps_its_files(home):
    (home / "run").mkdir()
    kept = {"supervision.json": "{}", "token": "secret", "run/agent.json": "{}"}
    for name, text in kept.items():
        (home / name).write_text(text)
    config = load({"VESTAL_HOME": str(home)}, home)
    config.home.prepare()
    assert (home / "format").read_text() == f"{CURRENT}\n"
    assert {name: (home / name).read_text() for name in kept} == kept


def test_vestal_home_of_a_newer_format_is_refused_and_not_changed(home):
    (home / "format").write_text("2")
    with pytest.raises(ConfigError, match="newer Vestal"):
        load({"VESTAL_HOME": str(home)}, home)
    defaults_at_home({"VESTAL_HOME": str(home)}, home)  # `vestal down` stops what runs all the same
    assert [path.name for path in home.iterdir()] == ["format"]
