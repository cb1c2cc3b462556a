"""The limits of memory that the engine sets in MLX, on devices that this machine need not have."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.engine.memory import readings
from mlx_server.engine.memory.ledger import GIB, MIB


class FakeMetal:
    """Stands for `mlx.core` on a Mac, and refuses what MLX refuses. `limits` has what was set."""

    def __init__(self, working_set_bytes: int | None) -> None:
        self.limits: dict[str, int] = {}
        self.metal = SimpleNamespace(is_available=lambda: True)
        self._working_set_bytes = working_set_bytes

    def device_info(self) -> dict[str, Any]:
        size = self._working_set_bytes
        return {} if size is None else {"max_recommended_working_set_size": size}

    def set_wired_limit(self, limit: int) -> None:
        if self._working_set_bytes is not None and limit > self._working_set_bytes:
            raise ValueError("[metal::set_wired_limit] Setting a wired limit larger than …")
        self.limits["wired"] = limit

    def set_cache_limit(self, limit: int) -> None:
        self.limits["cache"] = limit


def test_wired_limit_above_the_working_set_of_metal_is_lowered_and_logged(monkeypatch, capfd):
    """MLX raised ValueError, so that no engine could start."""
    mac = FakeMetal(11 * GIB)
    monkeypatch.setattr(readings, "mx", mac)
    readings.set_wired_limit(16 * GIB)
    assert mac.limits == {"wired": 11 * GIB}
    line = json.loads(capfd.readouterr().err)
    assert (line["event"], line["used"]) == ("wired_limit_lowered", 11 * GIB)
    assert "iogpu.wired_limit_mb" in line["cause"]


@pytest.mark.parametrize("working_set_bytes", [11 * GIB, None])
def test_wired_limit_that_metal_accepts_is_set_as_configured_and_not_logged(
    monkeypatch, capfd, working_set_bytes
):
    mac = FakeMetal(working_set_bytes)
    monkeypatch.setattr(readings, "mx", mac)
    readings.set_wired_limit(8 * GIB)
    assert mac.limits == {"wired": 8 * GIB}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("on_gpu", "limits"),
    [(True, {4 * GIB: 256 * MIB, 20 * GIB: GIB}), (False, {2 * GIB: 128 * MIB, 20 * GIB: 256 * MIB})],
)
def test_free_memory_that_mlx_keeps_is_limited(monkeypatch, on_gpu, limits):
    """Metal keeps freed buffers up to its whole working set, unless a limit is set; a CPU build keeps less
    than the arrays of a single layer.
    """
    monkeypatch.setattr(readings, "computes_on_gpu", lambda: on_gpu)
    for memory_limit_bytes, expected in limits.items():
        mac = FakeMetal(None)
        monkeypatch.setattr(readings, "mx", mac)
        readings.set_cache_limit(memory_limit_bytes)
        assert mac.limits.get("cache") == expected
