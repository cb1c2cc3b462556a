"""Choose the backend for the next call: a healthy one on the machine with the fewest running calls. Pure.

Running calls are counted per machine, not per backend, because Ollama and MLX on one machine share its GPU.
Of two backends on one machine, MLX is preferred, because it batches requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from orchestrator.llm.backend import Backend
from orchestrator.llm.breaker import BackendBreaker

KINDS = ("mlx", "ollama")


def named(mlx_urls: Iterable[str], ollama_urls: Iterable[str]) -> dict[str, str]:
    """Name the backends `mlx`, `mlx-2`, …, `ollama`, `ollama-2`, … and return their addresses by name, in
    order of preference. A kind without addresses gets one entry with an empty address.
    """
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
    breakers: Mapping[str, BackendBreaker],
    now: float,
    kind: str | None = None,
) -> Backend | None:
    """Return a healthy backend that has the model and whose breaker admits a call at the time `now`, on the
    machine with the fewest running calls; None if there is none.

    `urls`, `load` and `breakers` map the backends' names to their addresses, their numbers of running calls
    and their circuit breakers. Backends whose addresses have the same host are on one machine. Of several
    that are equally suitable, the first in `urls` is chosen. `kind` limits the choice to backends of that
    kind (None: any).
    """
    of_kind = [b for b in backends if kind in (None, b.kind)]
    able = [b for b in of_kind if b.serves(model) and breakers[b.name].admits(now)]
    machine_calls = machine_load(urls, load)
    order = list(urls)
    return min(able, key=lambda b: (machine_calls[_machine(urls[b.name])], order.index(b.name)), default=None)


def machine_load(urls: Mapping[str, str], load: Mapping[str, int]) -> dict[str, int]:
    """Return the number of running calls on each machine, by its host name. `urls` maps the backends' names
    to their addresses, whose host is the machine, and `load` maps the names to their numbers of running
    calls.
    """
    total: dict[str, int] = {}
    for name, url in urls.items():
        machine = _machine(url)
        total[machine] = total.get(machine, 0) + load.get(name, 0)
    return total


def _machine(url: str) -> str:
    host = urlsplit(url).hostname or ""
    return "localhost" if host in ("127.0.0.1", "::1") else host
