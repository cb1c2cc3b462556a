"""The base class of all sections, and the types that their settings share."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A section of the file. It is frozen, and an unknown key in it is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


def _refuse_bool(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take YAML's `true` for 1
        raise ValueError("give a whole number")
    return value


def _parse_digits(value: object) -> object:
    """Return digits as a number: every value from the environment is text."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


WholeNumber = Annotated[int, BeforeValidator(_refuse_bool)]
Port = Annotated[WholeNumber, Field(ge=1, le=65535)]
Count = Annotated[WholeNumber, Field(ge=0)]
PositiveCount = Annotated[WholeNumber, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
SecondsOrZero = Annotated[float, Field(ge=0)]
Address = Annotated[str, Field(min_length=1)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s,]+[^\s,]*$")]

KvBits = Annotated[Literal["none", 8, 4], BeforeValidator(_parse_digits)]
"""How many bits each number in the KV cache has; `none` stands for those that the model computes."""

KvGroupSize = Annotated[Literal[32, 64, 128], BeforeValidator(_parse_digits)]
"""How many numbers of a quantized KV cache share one scale."""
