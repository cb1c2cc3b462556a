"""The first models, fetched with their progress shown."""

import json
import subprocess
import sys
from typing import Any

from host_agent.cli.run.progress import Progress
from host_agent.errors import HostAgentError
from vestal.config import Config

SHOW_EACH = 0.25  # of a model, where no terminal can redraw a line


class ModelsMissing(HostAgentError):
    """A model that is to be preloaded could not be had; the message is the store's own."""

    code = "models_missing"
    retryable = True


def ensure(config: Config, progress: Progress) -> None:
    """Fetch what of `mlx.preload` is missing."""
    if not config.mlx.preload:
        return
    command = [sys.executable, "-m", "mlx_server.model_store", "--json", "ensure"]
    shown: dict[str, float] = {}
    problems = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            told = _parsed(line)
            if "error" in told:
                problems.append(_sentence(told))
            elif "model" in told:
                _show(progress, told, shown)
    if problems:
        raise ModelsMissing(f"Nothing was started. {' '.join(problems)}")
    if process.returncode:
        raise ModelsMissing("Nothing was started: the models could not be fetched (see the lines above).")


def _show(progress: Progress, told: dict[str, Any], shown: dict[str, float]) -> None:
    name, fraction = told["model"], float(told.get("fraction") or 0.0)
    last = shown.get(name, -1.0)
    if progress.redraws or fraction >= last + SHOW_EACH or (fraction >= 1.0 > last):
        shown[name] = fraction
        progress.say(name, f"{fraction:.0%}  {told.get('sentence', '')}".rstrip(), steps=fraction < 1.0)


def _parsed(line: str) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _sentence(told: dict[str, Any]) -> str:
    error = told["error"]
    return " ".join(part for part in (error.get("message"), error.get("remedy")) if part)
