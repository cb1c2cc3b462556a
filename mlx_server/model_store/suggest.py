"""Choose a model for each task by the memory that it would take on a machine, from the table
`suggestions.yaml`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from mlx_server.memory_forecast.fit import USUAL_CONTEXT_TOKENS, Fit, fit, longest_context
from mlx_server.memory_forecast.forecast import Forecast, forecast_from_figures
from mlx_server.memory_forecast.weights import SLICE_BYTES, Arithmetic, Weights
from mlx_server.model_store.forecasts import METAL_STEP_TOKENS

TABLE = Path(__file__).with_name("suggestions.yaml")
Task = Literal["chat", "code", "small", "embed", "rerank", "vision"]
TASKS: tuple[Task, ...] = get_args(Task)
_WITHOUT_KV = frozenset({"embed", "rerank"})
_NUMBER_BYTES = {"F32": 4}


@dataclass(frozen=True)
class Suggestion:
    """A row of the table `suggestions.yaml`: a model that is suggested for `task`, why, and the values from
    which its memory is forecast.
    """

    name: str
    source: str
    task: Task
    reason: str
    license: str
    parameters: int
    weights_bytes: int
    quantization: str
    context_tokens: int
    config: dict[str, Any]

    def forecast(self, arithmetic: Arithmetic, step_tokens: int = METAL_STEP_TOKENS) -> Forecast:
        """Return the model's memory forecast, computed by the same code as the engine's forecast of an
        installed model. `arithmetic` says how MLX computes on the machine, such as whether weights become
        float32 in memory. `step_tokens` is the number of prompt tokens in a prefill step.
        """
        dense = arithmetic.dense_float32
        stored, number = self.weights_bytes, _NUMBER_BYTES.get(self.quantization, 2)
        weights = Weights(4 * self.parameters if dense else stored, SLICE_BYTES, 4 if dense else number)
        return forecast_from_figures(
            self.config,
            weights,
            arithmetic,
            step_tokens=step_tokens,
            context_tokens=self.context_tokens,
            embeds=self.task in _WITHOUT_KV,
        )


@dataclass(frozen=True)
class Choice:
    """The model of the table `suggestions.yaml` that is chosen for a task; `suggestion` is None if none fits.

    `fit` has the memory that the model needs, and the limit. `longest_context_tokens` is the longest context
    with which one request fits.
    """

    task: Task
    suggestion: Suggestion | None
    fit: Fit | None = None
    longest_context_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the choice as a JSON object: the row of the table without its `config`, the memory that the
        model needs and the limit (`vestal`), `longest_context_tokens` and `command`. Without a suggestion,
        the object has only the task, and null as the name.
        """
        if self.suggestion is None or self.fit is None:
            return {"task": self.task, "name": None}
        row = {key: value for key, value in asdict(self.suggestion).items() if key != "config"}
        more = {"longest_context_tokens": self.longest_context_tokens, "command": self.command}
        return row | {"vestal": self.fit.as_json()} | more

    @property
    def command(self) -> str:
        """Return the shell command that fetches the model; "" without a suggestion."""
        return f"vestal models pull {self.suggestion.name}" if self.suggestion else ""


@functools.cache
def suggestions() -> tuple[Suggestion, ...]:
    """Return the rows of the table `suggestions.yaml`, in its order: a task's better models come first."""
    return tuple(Suggestion(**row) for row in yaml.safe_load(TABLE.read_text("utf-8")))


def choose(limit_bytes: int, arithmetic: Arithmetic, step_tokens: int = METAL_STEP_TOKENS) -> list[Choice]:
    """Return one choice for each of the TASKS, which are uses of a model, such as chat, code or embedding.
    The choice is the first model for the task in the table `suggestions.yaml`, in which better models come
    first, that fits into `limit_bytes` with a context of USUAL_CONTEXT_TOKENS.

    If no model for the task fits with that context, the first model for it that can be loaded at all is
    chosen. If none can be loaded, the choice has no suggestion. `arithmetic` says how MLX computes on the
    machine, and `step_tokens` is the number of prompt tokens in a prefill step; both change how much memory a
    model takes.
    """
    return [_choose(task, suggestions(), limit_bytes, arithmetic, step_tokens) for task in TASKS]


def _choose(
    task: Task, rows: Sequence[Suggestion], limit_bytes: int, arithmetic: Arithmetic, step_tokens: int
) -> Choice:
    of_task = [(row, row.forecast(arithmetic, step_tokens)) for row in rows if row.task == task]
    for context_tokens in (USUAL_CONTEXT_TOKENS, None):
        for row, forecast in of_task:
            found = fit(forecast, limit_bytes, context_tokens)
            if found.fits:
                return Choice(task, row, found, longest_context(forecast, limit_bytes))
    return Choice(task, None)
