"""Fetch the models that `vestal up` loads at the start, and show the progress."""

import json
import subprocess
from typing import Any

from host_agent.cli.run import model_store
from host_agent.cli.run.progress import Progress
from host_agent.cli.screen.units import format_download
from host_agent.errors import HostAgentError
from vestal.config import Config

STEP_FRACTION = 0.25  # if no terminal can redraw a line, one is printed per this fraction of a model


class ModelsMissing(HostAgentError):
    """A model of `mlx.preload` could not be fetched. The message has the reason and the remedy."""

    code = "models_missing"
    retryable = True


def fetch_missing(config: Config, progress: Progress) -> None:
    """Fetch the missing models of `mlx.preload`. Raises ModelsMissing if a model cannot be fetched."""
    if not config.mlx.preload:
        return
    if problem := _fetch(progress):
        raise ModelsMissing(f"Nothing was started. {problem}")


def _fetch(progress: Progress) -> str:
    """Fetch the missing models of `mlx.preload`, and show the progress.

    Return a text with a sentence for each model that could not be fetched; empty if there is none.
    """
    shown: dict[str, float] = {}
    problems = []
    try:
        for line in model_store.json_lines("ensure"):
            update = _parse(line)
            if "error" in update:
                problems.append(_problem(update["error"]))
            elif "model" in update:
                _show(progress, update, shown)
    except subprocess.CalledProcessError:
        return " ".join(problems) or "The models could not be fetched (see the lines above)."
    return " ".join(problems)


def _show(progress: Progress, update: dict[str, Any], shown: dict[str, float]) -> None:
    """Show an update about a model's download. If `progress` cannot redraw a line, skip the update unless it
    is the model's first, the download is complete, or the fraction has grown by STEP_FRACTION since the last
    update shown.

    `shown` maps each model to the fraction that was shown last. This call updates it.
    """
    name, fraction = update["model"], float(update.get("fraction") or 0.0)
    last = shown.get(name, -1.0)
    if progress.redraws or fraction >= last + STEP_FRACTION or (fraction >= 1.0 > last):
        shown[name] = fraction
        downloads = update.get("bytes") and fraction < 1.0
        text = (
            f"{fraction:.0%}  {format_download(update) if downloads else update.get('sentence', '')}".rstrip()
        )
        progress.show(name, text, final=fraction >= 1.0)


def _parse(line: str) -> dict[str, Any]:
    try:
        update = json.loads(line)
    except ValueError:
        return {}
    return update if isinstance(update, dict) else {}


def _problem(error: dict[str, Any]) -> str:
    return " ".join(part for part in (error.get("message"), error.get("remedy")) if part)
