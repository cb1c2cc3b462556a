"""The speed of a download, and how long the rest of it takes."""

from __future__ import annotations

from mlx_server.model_store.progress import RATE_WINDOW_S, Rate


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


def test_download_rate_starts_again_if_a_file_has_to_be_downloaded_again():
    rate = Rate()
    rate.add(0.0, 1_000)
    rate.add(1.0, 0)
    rate.add(2.0, 100)
    assert rate.bytes_per_s() == 100
