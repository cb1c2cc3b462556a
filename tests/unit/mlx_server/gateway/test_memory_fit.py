"""Which installed models fit into memory, as several requests ask for it at once."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from mlx_server.gateway.memory_fit import MemoryFit


def _entries(names: str) -> list[Any]:
    return [SimpleNamespace(name=name, digest=name) for name in names]


async def test_memory_fit_of_an_older_list_of_models_does_not_fail_if_a_newer_list_is_read_meanwhile():
    """GET /api/tags answered 500 if a model was deleted and another added while it ran."""
    may_go_on = threading.Event()

    class Forecasts(MemoryFit):
        def _forecast(self, entry: Any) -> None:
            if entry.name == "n":
                may_go_on.wait(10)

    nothing: Any = None
    of_models = Forecasts(nothing)
    await of_models.of(_entries("ax"), 1)
    first = asyncio.ensure_future(of_models.of(_entries("axn"), 1))  # `x` is deleted meanwhile
    await asyncio.sleep(0)
    await of_models.of(_entries("am"), 1)
    may_go_on.set()
    assert await first == {}
