"""Ollama's `options`: how tokens are drawn, and how long prompt and answer may be. Pure.

The defaults are Ollama's own, except for `repeat_penalty`: the engine that Ollama uses now has none (1.0).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from mlx_server.gateway.dialects.bodies import Body, Stops, WholeNumber
from mlx_server.gateway.dialects.sampling_fields import (
    INT32_LIMIT,
    ContextLength,
    RepeatPenalty,
    Share,
    Temperature,
    TopK,
    make_sampling,
)
from mlx_server.protocol import Sampling

DEFAULT_REPEAT_LAST_N = 64
MAX_NUMBER_CHARS = 40
"""The longest text that is read as a number."""

_WHOLE = ("seed", "top_k", "repeat_last_n", "num_predict", "num_ctx")
_FRACTIONS = ("temperature", "top_p", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty")
_LIMITS: Mapping[str, tuple[float, float]] = {
    "top_k": (0, INT32_LIMIT - 1),
    "repeat_last_n": (-1, INT32_LIMIT - 1),
    "num_predict": (-1, INT32_LIMIT - 1),
    "num_ctx": (-1, INT32_LIMIT - 1),
    "temperature": (0.0, 100.0),
    "repeat_penalty": (0.0, 100.0),
    "presence_penalty": (-100.0, 100.0),
    "frequency_penalty": (-100.0, 100.0),
}
"""A number outside these becomes the nearer end: Ollama's samplers take any number."""


class Options(Body):
    """The options that have a meaning here; others, such as `num_gpu` and `mirostat`, are ignored."""

    seed: WholeNumber | None = None
    temperature: Temperature = None
    top_p: Share = None
    top_k: TopK = None
    min_p: Share = None
    repeat_penalty: RepeatPenalty = None
    repeat_last_n: WholeNumber | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_predict: WholeNumber | None = None
    num_ctx: ContextLength = None
    stop: Stops = None

    @model_validator(mode="before")
    @classmethod
    def _in_range(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        changed = {name: _number(given[name], name) for name in (*_WHOLE, *_FRACTIONS) if name in given}
        return given | changed

    def sampling(self, drawn_seed: int) -> Sampling:
        """Return the sampling settings. A seed of -1 means `drawn_seed`, as no seed does.

        `repeat_last_n` 0 switches the penalty off, and -1 extends it to the whole context.
        """
        last_n = _or(self.repeat_last_n, DEFAULT_REPEAT_LAST_N)
        return make_sampling(
            drawn_seed,
            seed=self.seed,
            temperature=_or(self.temperature, 0.8),
            top_p=_or(self.top_p, 0.9),
            top_k=_or(self.top_k, 40),
            min_p=self.min_p,
            repeat_penalty=None if last_n == 0 else self.repeat_penalty,
            repeat_last_tokens={0: DEFAULT_REPEAT_LAST_N, -1: INT32_LIMIT - 1}.get(last_n, last_n),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
        )

    @property
    def max_tokens(self) -> int | None:
        """Return the most tokens of an answer; None for no limit, which -1 and -2 (fill the context) mean,
        and 0 as in Ollama's runner.
        """
        return self.num_predict if self.num_predict is not None and self.num_predict > 0 else None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


class EmbeddingOptions(Body):
    """The options of an embedding, of which only `num_ctx` has a meaning here.

    A `num_ctx` of 0 leaves no room for any text, which the engine refuses as Ollama does; a negative one
    stands for the model's own.
    """

    num_ctx: WholeNumber | None = Field(default=None)

    @model_validator(mode="before")
    @classmethod
    def _in_range(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "num_ctx" not in given:
            return given
        return given | {"num_ctx": _number(given["num_ctx"], "num_ctx")}

    @property
    def context_tokens(self) -> int | None:
        return self.num_ctx if self.num_ctx is not None and self.num_ctx >= 0 else None


def _number(value: Any, name: str) -> Any:
    """Return `value` as option `name` takes it: a whole number cut off as in Go, and within its limits.

    Text that writes a number is one, since forms and environment variables hold text. Any other value is
    returned as it is, for the field's type to refuse.
    """
    number = _parsed(value) if isinstance(value, str) else value
    if not isinstance(number, int | float) or isinstance(number, bool):
        return value
    if isinstance(number, float) and not math.isfinite(number):
        return value
    if name in _WHOLE:
        number = int(number)
    least, most = _LIMITS.get(name, (number, number))
    return min(max(number, least), most)


def _parsed(text: str) -> float | None:
    """Return the number that `text` writes, or None."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    for parse in (int, float):
        with contextlib.suppress(ValueError):
            return parse(text)
    return None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
