"""The speed of a download, and how long the rest of it takes."""

from __future__ import annotations

import errno
import os

from mlx_server.model_store.progress import RATE_WINDOW_S, Rate, folder_bytes


def test_download_rate_of_a_resumed_download_counts_only_newly_downloaded_bytes():
    """A resumed download begins with gigabytes that took no time."""
    rate = Rate()
    rate.add(100.0, 5_000)
    assert rate.bytes_per_s() == 0
    assert rate.remaining_s(10_000) is None
    rate.add(102.0, 7_000)
    assert rate.bytes_per_s() == 1_000
    assert rate.remaining_s(10_000) == 3.0


def test_download_rate_is_measured_over_the_last_seconds():
    rate = Rate()
    for second in range(60):
        rate.add(second, second * 10)
    for second in range(60, 60 + 2 * int(RATE_WINDOW_S)):
        rate.add(second, 600 + (second - 60) * 500)
    assert rate.bytes_per_s() == 500


def test_stalled_download_has_rate_zero_and_no_remaining_time():
    rate = Rate()
    rate.add(0.0, 10)
    rate.add(20.0, 10)
    assert (rate.bytes_per_s(), rate.remaining_s(100)) == (0.0, None)


def test_download_rate_counts_only_the_new_download_after_a_file_download_restarts_from_zero():
    rate = Rate()
    rate.add(0.0, 1_000)
    rate.add(1.0, 0)
    rate.add(2.0, 100)
    assert rate.bytes_per_s() == 100


def test_folder_bytes_of_a_folder_whose_subfolder_vanishes_counts_the_other_files(tmp_path, monkeypatch):
    """pip deletes its temporary folders while they are measured. That once ended the report of progress."""
    (tmp_path / "gone").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "kept" / "file")
    (tmp_path / "folder-link").symlink_to(tmp_path / "kept")
    real = os.scandir

    def vanish(path="."):
        if str(path).endswith("gone"):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", vanish)
    assert folder_bytes(tmp_path) == 5
    assert folder_bytes(tmp_path / "gone") == folder_bytes(tmp_path / "never") == 0
