"""What `vestal models pull` prints about downloads."""

from __future__ import annotations

from typing import Any

import pytest

from host_agent.cli.models.download_view import Lines
from host_agent.cli.screen.units import format_download

GIB = 1024**3


def update(fraction: float, sentence: str = "Downloading org/big, 4.0 GiB.", **more: Any) -> dict[str, Any]:
    return {"model": "big", "fraction": fraction, "sentence": sentence, "bytes": 4 * GIB} | more


def test_download_progress_shows_bytes_speed_and_remaining_time():
    shown = format_download(update(0.25, bytes_per_s=45 * 1024**2, remaining_s=80.0))
    assert shown == "1.0 GiB of 4.0 GiB, 45.0 MiB/s, 1 min left"
    assert format_download(update(0.25)) == "1.0 GiB of 4.0 GiB"
    assert format_download(update(1.0, bytes_per_s=1, remaining_s=0.0)) == "4.0 GiB of 4.0 GiB"
    assert format_download(update(0.0, bytes=0)) == ""


def test_download_progress_to_a_pipe_prints_a_line_per_status_message_and_per_ten_percent(
    capsys: pytest.CaptureFixture[str],
):
    lines = Lines()
    lines.show(update(0.0, "big fits.", bytes=0))
    for hundredth in range(0, 100):
        lines.show(update(hundredth / 100))
    lines.show(update(1.0, "Ready."))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "big: big fits."
    assert printed[1] == "big:   0%  0 B of 4.0 GiB"
    assert printed[-1] == "big: Ready."
    assert len(printed) == 12
