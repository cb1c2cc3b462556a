from __future__ import annotations

from pathlib import Path

from vestal.supervision.processes.log_file import last_lines, rotate_if_large


def test_log_file_of_a_child_is_rotated_only_if_it_exceeds_its_maximum(tmp_path: Path):
    path = tmp_path / "logs" / "a.log"
    assert rotate_if_large(path, 10) == 0
    path.write_text("0123456789")
    assert rotate_if_large(path, 10) == 10
    path.write_text("0123456789a")
    assert rotate_if_large(path, 10) == 0
    assert (tmp_path / "logs" / "a.log.1").read_text() == "0123456789a"


def test_last_log_lines_of_a_child_are_the_newest_nonempty_lines_of_the_current_run(tmp_path: Path):
    path = tmp_path / "a.log"
    path.write_text("old\n")
    since = path.stat().st_size
    assert last_lines(path, since) == []
    path.write_bytes(b"old\nnew \xff\n\n  \nlast\n")
    assert last_lines(path, since, 2) == ["new \ufffd", "last"]
    assert last_lines(tmp_path / "none.log") == []
    path.write_text("x" * 100_000 + "\nend\n")
    assert last_lines(path, 0, 1) == ["end"]


def test_folder_that_a_log_needs_can_be_read_by_its_owner_only(tmp_path: Path):
    rotate_if_large(tmp_path / "home" / "logs" / "a.log")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "home", tmp_path / "home" / "logs")}
    assert modes == {0o700}
