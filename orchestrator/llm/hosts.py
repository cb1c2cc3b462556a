"""Which host gets the next call: least loaded healthy one first. Pure: load and time are arguments.

Two backends on one machine share its GPU (Ollama and MLX compete for Metal), so it is machines whose load is
compared; on one machine MLX comes first, because it batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from orchestrator.llm.backend import Backend
from orchestrator.llm.breaker import Breaker

KINDS = ("mlx", "ollama")


def named(mlx_urls: Iterable[str], ollama_urls: Iterable[str]) -> dict[str, str]:
    """Name → address, in order of preference: `mlx`, `mlx-2`, …, `ollama`, …; no address: a kind not used."""
    found: dict[str, str] = {}
    for kind, urls in zip(KINDS, (mlx_urls, ollama_urls), strict=True):
        for number, url in enumerate(tuple(urls) or ("",), 1):
            found[kind if number == 1 else f"{kind}-{number}"] = url
    return found


def pick(
    backends: Iterable[Backend],
    model: str,
    urls: Mapping[str, str],
    load: Mapping[str, int],
    breakers: Mapping[str, Breaker],
    now: float,
) -> Backend | None:
    """The healthy backend that has the model, admits a call, and stands on the least loaded machine."""
    able = [b for b in backends if b.serves(model) and breakers[b.name].admits(now)]
    busy = machine_load(urls, load)
    order = list(urls)
    return min(able, key=lambda b: (busy[_machine(urls[b.name])], order.index(b.name)), default=None)


def machine_load(urls: Mapping[str, str], load: Mapping[str, int]) -> dict[str, int]:
    """Calls in flight, summed by machine."""
    total: dict[str, int] = {}
    for name, url in urls.items():
        machine = _machine(url)
        total[machine] = total.get(machine, 0) + load.get(name, 0)
    return total


def _machine(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return "localhost" if host in ("127.0.0.1", "::1") else host
