"""Ollama's `options`: how tokens are sampled, and how long prompt and answer may be. Pure.

The defaults are Ollama's own, except for `repeat_penalty`, which is off (1.0) as in Ollama's newer engine.
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
"""A longer text is not converted to a number."""

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
"""The range of each option. A number outside its range becomes the nearer limit, because Ollama's samplers
accept any number."""


class Options(Body):
    """The options that have an effect here. Others, such as `num_gpu` and `mirostat`, are ignored."""

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
        """Return the sampling settings. If `seed` is missing or -1, the seed is `drawn_seed`.

        A `repeat_last_n` of 0 switches the repetition penalty off, and -1 extends it to the whole context.
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
        """Return the maximum number of tokens in an answer; None for no limit, which `num_predict` requests
        with 0, -1 or -2, as in Ollama.
        """
        return self.num_predict if self.num_predict is not None and self.num_predict > 0 else None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)


class EmbeddingOptions(Body):
    """The options of an embedding, of which only `num_ctx` has an effect here.

    A `num_ctx` of 0 leaves no room for any text, so that the engine refuses the request as Ollama does. A
    negative one means the model's own context length.
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
    """Return `value` as the option `name` expects it: limited to the option's range, and truncated to a whole
    number if the option needs one, as Go does.

    A text that contains a number is converted, since forms and environment variables hold texts. Any other
    value is returned as it is, for the field's type to refuse.
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
    """Return the number that `text` contains; None if it does not contain one."""
    if len(text) > MAX_NUMBER_CHARS:
        return None
    for parse in (int, float):
        with contextlib.suppress(ValueError):
            return parse(text)
    return None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
