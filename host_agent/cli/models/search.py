"""`vestal models search`: find models on the Hugging Face hub that Vestal can serve, and say which fit this
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from host_agent.cli.screen.waiting import waiting_for
from host_agent.cli.table import Cell, Column, print_table
from mlx_server.memory_forecast.fit import Fit, fit
from mlx_server.memory_forecast.forecast import forecast_from_weights_only
from mlx_server.model_store.forecasts import THIS_MACHINE, machine_limit_bytes
from mlx_server.model_store.sources import hub
from mlx_server.model_store.sources.hub_search import SearchResult, search
from vestal.config import Config
from vestal.config.units import format_size

COLUMNS = (
    Column("name"),
    Column("kind"),
    Column("downloads", align="right"),
    Column("size", align="right"),
    Column("fits"),
    Column("license"),
)


def run(options: argparse.Namespace, config: Config) -> int:
    """Print the models that were found. Return 1 if none was found, else 0.

    Raises ModelStoreError if the hub cannot be searched.
    """
    words = " ".join(options.words)
    hub.prepare()
    with waiting_for("the hub"):
        results = search(words, options.limit)
    limit_bytes = machine_limit_bytes(config)
    found = [(result, _fit(result, limit_bytes)) for result in results]
    if options.json:
        print(json.dumps({"models": [_as_json(*each) for each in found]}, ensure_ascii=False))
    elif found:
        print_table(COLUMNS, [_row(*each) for each in found])
        print("`vestal models info NAME` forecasts one exactly, `vestal models pull NAME` fetches it.")
    else:
        print(f"vestal: The hub has no model that Vestal can serve for {words!r}.", file=sys.stderr)
    return 0 if found else 1


def _fit(result: SearchResult, limit_bytes: int) -> Fit | None:
    """Return how much memory the model needs, judged by its weights alone, and whether that fits into
    `limit_bytes`; None if the search result has no size.
    """
    loaded_bytes = result.loaded_bytes(THIS_MACHINE)
    return fit(forecast_from_weights_only(loaded_bytes), limit_bytes) if loaded_bytes else None


def _as_json(result: SearchResult, found: Fit | None) -> dict[str, Any]:
    return {
        "name": result.repo,
        "kind": result.kind,
        "downloads": result.downloads,
        "bytes": result.weights_bytes or None,
        "gated": result.gated,
        "license": result.license,
        "vestal": found.as_json() if found else None,
    }


def _row(result: SearchResult, found: Fit | None) -> tuple[Cell, ...]:
    fits: Cell = "?" if found is None else "yes" if found.fits else ("no", "red")
    return (
        result.repo + (" (gated)" if result.gated else ""),
        result.kind,
        f"{result.downloads:,}",
        format_size(result.weights_bytes) if result.weights_bytes else "?",
        fits,
        result.license,
    )
