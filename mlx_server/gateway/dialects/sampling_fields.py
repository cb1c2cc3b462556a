"""Fields that say how tokens are drawn, with the values by which clients switch a setting off. Pure.

llama.cpp, Ollama and LM Studio read a number outside a setting's range as "off" or as the nearest end, and
their users' interfaces send such numbers by default: top_k -1, num_ctx -1, max_tokens -1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mlx_server.gateway.dialects.bodies import WholeNumber

INT32_LIMIT = 2**31


def _number(change: Callable[[float], float | None]) -> BeforeValidator:
    """Return a validator that changes numbers only: the field's type refuses whatever else comes."""

    def changed(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return change(value) if is_number else value

    return BeforeValidator(changed)


Temperature = Annotated[Annotated[float, Field(ge=0, le=100)] | None, _number(lambda value: max(value, 0))]
"""Negative: 0, the most probable token."""
Share = Annotated[Annotated[float, Field(ge=0, le=1)] | None, _number(lambda value: min(max(value, 0), 1))]
"""top_p, min_p: outside 0 to 1 the nearer end."""
TopK = Annotated[
    Annotated[WholeNumber, Field(ge=0, lt=INT32_LIMIT)] | None, _number(lambda value: max(value, 0))
]
"""Negative: 0, all tokens."""
RepeatPenalty = Annotated[
    Annotated[float, Field(gt=0, le=100)] | None, _number(lambda value: value if value > 0 else None)
]
"""Not positive: None, no penalty."""
ContextLength = Annotated[
    Annotated[WholeNumber, Field(ge=1, lt=INT32_LIMIT)] | None,
    _number(lambda value: value if value > 0 else None),
]
"""Not positive: None, the model's own."""
AnswerLimit = Annotated[
    Annotated[WholeNumber, Field(ge=1, lt=INT32_LIMIT)] | None,
    _number(lambda value: value if value >= 0 else INT32_LIMIT - 1),
]
"""Negative: until the context is full."""


def effective_temperature(temperature: float, top_p: float) -> float:
    """Return the temperature at which tokens are drawn: a top_p of 0 leaves the most probable one only."""
    return temperature if top_p > 0 else 0.0
