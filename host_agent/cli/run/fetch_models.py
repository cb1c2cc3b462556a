"""Fetch the models that `mlx.preload` names, and show the progress."""

import json
import subprocess
import sys
from typing import Any

from host_agent.cli.run.progress import Progress
from host_agent.errors import HostAgentError
from vestal.config import Config

STEP_FRACTION = 0.25  # of a model: how often progress is printed if no terminal can redraw a line


class ModelsMissing(HostAgentError):
    """A model of `mlx.preload` could not be fetched; the message is the model store's own."""

    code = "models_missing"
    retryable = True


def fetch_missing(config: Config, progress: Progress) -> None:
    """Fetch what is missing of `mlx.preload`. Raises ModelsMissing if a model cannot be fetched."""
    if not config.mlx.preload:
        return
    command = [sys.executable, "-m", "mlx_server.model_store", "--json", "ensure"]
    shown: dict[str, float] = {}
    problems = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            update = _parse(line)
            if "error" in update:
                problems.append(_problem(update["error"]))
            elif "model" in update:
                _show(progress, update, shown)
    if problems:
        raise ModelsMissing(f"Nothing was started. {' '.join(problems)}")
    if process.returncode:
        raise ModelsMissing("Nothing was started: the models could not be fetched (see the lines above).")


def _show(progress: Progress, update: dict[str, Any], shown: dict[str, float]) -> None:
    """Show an update. `shown` maps each model to the fraction that was shown last."""
    name, fraction = update["model"], float(update.get("fraction") or 0.0)
    last = shown.get(name, -1.0)
    if progress.redraws or fraction >= last + STEP_FRACTION or (fraction >= 1.0 > last):
        shown[name] = fraction
        text = f"{fraction:.0%}  {update.get('sentence', '')}".rstrip()
        progress.show(name, text, final=fraction >= 1.0)


def _parse(line: str) -> dict[str, Any]:
    try:
        update = json.loads(line)
    except ValueError:
        return {}
    return update if isinstance(update, dict) else {}


def _problem(error: dict[str, Any]) -> str:
    return " ".join(part for part in (error.get("message"), error.get("remedy")) if part)
