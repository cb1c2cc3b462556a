"""`vestal models list`: show the installed models, and whether they fit into this machine's memory."""

import argparse
import json
from typing import Any

from host_agent.cli.table import Cell, Column, print_table
from mlx_server.memory_forecast.fit import Fit, fit
from mlx_server.model_store import ModelEntry, survey
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.forecasts import forecast_of_installed, machine_limit_bytes
from vestal.config import Config
from vestal.config.units import format_size

COLUMNS = (
    Column("name"),
    Column("kind"),
    Column("parameters", align="right"),
    Column("quantization"),
    Column("size", align="right"),
    Column("memory", align="right"),
    Column("fits"),
    Column("from", wraps=True),
)


def run(options: argparse.Namespace, config: Config) -> int:
    """Print the models that can be loaded, and then the broken models with the reasons."""
    entries, broken = survey(config)
    fits = {entry.name: _fit(config, entry) for entry in entries}
    if options.json:
        models = [entry.as_json() | {"vestal": _as_json(fits[entry.name])} for entry in entries]
        reasons = [{"name": each.name, "reason": each.reason} for each in broken]
        print(json.dumps({"models": models, "broken": reasons}, ensure_ascii=False))
        return 0
    rows = [_row(entry, fits[entry.name]) for entry in entries]
    rows += [(each.name, ("broken", "red"), "", "", "", "", "", each.reason) for each in broken]
    if rows:
        print_table(COLUMNS, rows)
    else:
        print("No model is installed: `vestal models suggest` recommends some for this machine.")
    return 0


def _fit(config: Config, entry: ModelEntry) -> Fit | None:
    """Return how much memory the model needs and whether it fits; None if the model's files cannot be
    read.
    """
    try:
        return fit(forecast_of_installed(config, entry), machine_limit_bytes(config))
    except (UnreadableModel, OSError):
        return None


def _as_json(found: Fit | None) -> dict[str, Any] | None:
    return found.as_json() if found else None


def _row(entry: ModelEntry, found: Fit | None) -> tuple[Cell, ...]:
    fits: Cell = "?" if found is None else "yes" if found.fits else ("no", "red")
    return (
        entry.name,
        entry.kind,
        entry.parameter_size,
        entry.quantization,
        format_size(entry.bytes),
        format_size(found.needed_bytes) if found else "?",
        fits,
        entry.made_from or str(entry.path),
    )
