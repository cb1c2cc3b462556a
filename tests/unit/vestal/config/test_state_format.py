"""Which state folders a program uses, migrates and refuses."""

from __future__ import annotations

import errno
import getpass
from pathlib import Path

import pytest

from vestal.config import StateFolderRefused, defaults_at_home, load, state_format
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
    with pytest.raises(StateFolderRefused, match="newer Vestal"):
        load({"VESTAL_HOME": str(home)}, home)
    defaults_at_home({"VESTAL_HOME": str(home)}, home)  # `vestal down` stops what runs all the same
    assert [path.name for path in home.iterdir()] == ["format"]


def _cannot_be_read(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the format file be unreadable with this number of an error. Root, who may run the tests, can read
    all files.
    """

    def read_text(path: Path, **_: object) -> str:
        raise OSError(number, "a reason", str(path))

    monkeypatch.setattr(Path, "read_text", read_text)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_vestal_home_whose_format_file_another_user_owns_is_refused(home, monkeypatch, number):
    """After a newer Vestal had run with sudo, the older one took the folder for one without a number."""
    (home / "format").write_text("2\n")
    _cannot_be_read(monkeypatch, number)
    with pytest.raises(StateFolderRefused, match=f"{home}/format belongs to {getpass.getuser()}"):
        load({"VESTAL_HOME": str(home)}, home)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOTDIR])
def test_vestal_home_whose_format_file_cannot_be_read_now_is_used_and_not_migrated(home, monkeypatch, number):
    (home / "format").write_text("2\n")
    with monkeypatch.context() as patched:
        _cannot_be_read(patched, number)
        config = load({"VESTAL_HOME": str(home)}, home)
        config.home.prepare()
    assert (home / "format").read_text() == "2\n"
