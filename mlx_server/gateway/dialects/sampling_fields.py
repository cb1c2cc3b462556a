"""Fields that say how tokens are sampled, with the values by which clients switch a setting off. Pure.

llama.cpp, Ollama and LM Studio read a number outside a setting's range as "off" or as the nearest limit of
the range, and their user interfaces send such numbers by default: top_k -1, num_ctx -1, max_tokens -1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from mlx_server.gateway.dialects.bodies import WholeNumber
from mlx_server.gateway.requests.model_requests import SEED_MASK
from mlx_server.protocol import Sampling

INT32_LIMIT = 2**31
DEFAULT_REPEAT_LAST_TOKENS = Sampling().repeat_last_tokens


def _number(change: Callable[[float], float | None]) -> BeforeValidator:
    """Return a Pydantic validator that replaces a number by `change(number)`, where None stands for no
    value. Other values are left for the field's type to refuse.
    """

    def changed(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return change(value) if is_number else value

    return BeforeValidator(changed)


Temperature = Annotated[Annotated[float, Field(ge=0, le=100)] | None, _number(lambda value: max(value, 0))]
"""A temperature. A negative value becomes 0, which always selects the most probable token."""
Share = Annotated[Annotated[float, Field(ge=0, le=1)] | None, _number(lambda value: min(max(value, 0), 1))]
"""A setting from 0 to 1, such as top_p or min_p. A value outside this range becomes the nearer limit."""
TopK = Annotated[
    Annotated[WholeNumber, Field(ge=0, lt=INT32_LIMIT)] | None, _number(lambda value: max(value, 0))
]
"""A top_k. A negative value becomes 0, which means all tokens."""
RepeatPenalty = Annotated[
    Annotated[float, Field(gt=0, le=100)] | None, _number(lambda value: value if value > 0 else None)
]
"""A repetition penalty. A value of 0 or less becomes None, which means no penalty."""
ContextLength = Annotated[
    Annotated[WholeNumber, Field(ge=1, lt=INT32_LIMIT)] | None,
    _number(lambda value: value if value > 0 else None),
]
"""A context length in tokens. A value of 0 or less becomes None, which means the model's own length."""
UNLIMITED = INT32_LIMIT - 1
_no_limit_if_huge = _number(lambda value: min(value, UNLIMITED) if value >= 0 else UNLIMITED)
AnswerLimit = Annotated[Annotated[WholeNumber, Field(ge=1, lt=INT32_LIMIT)] | None, _no_limit_if_huge]
"""The maximum number of tokens in an answer. A negative value, or one from 2³¹ on, means that the answer may
fill the context. 0 is refused, because it means no token at some servers and no limit at others."""
AnswerLimitOrZero = Annotated[Annotated[WholeNumber, Field(ge=0, lt=INT32_LIMIT)] | None, _no_limit_if_huge]
"""The same for APIs that define 0: the prompt is processed, and no token is generated."""


def make_sampling(
    drawn_seed: int,
    *,
    seed: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repeat_penalty: float | None = None,
    repeat_last_tokens: int = DEFAULT_REPEAT_LAST_TOKENS,
    presence_penalty: float | None = None,
    frequency_penalty: float | None = None,
    logit_bias: tuple[tuple[int, float], ...] = (),
) -> Sampling:
    """Return the sampling settings of a generation. An argument that is None switches its setting off; for
    `temperature` and `top_p`, None stands for 1. If `seed` is None or -1, the seed is `drawn_seed`. A `top_p`
    of 0 leaves only the most probable token.
    """
    top_p = 1.0 if top_p is None else top_p
    temperature = 1.0 if temperature is None else temperature
    return Sampling(
        seed=drawn_seed if seed is None or seed == -1 else seed & SEED_MASK,
        temperature=temperature if top_p > 0 else 0.0,
        top_p=top_p,
        top_k=top_k or 0,
        min_p=min_p or 0.0,
        repeat_penalty=repeat_penalty or 1.0,
        repeat_last_tokens=repeat_last_tokens,
        presence_penalty=presence_penalty or 0.0,
        frequency_penalty=frequency_penalty or 0.0,
        logit_bias=logit_bias,
    )
