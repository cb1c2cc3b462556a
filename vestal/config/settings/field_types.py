"""The base class of all sections, and the types that their settings share."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from vestal.config.urls import check_http_url, without_api_path

MOST_DIGITS = 9
MOST_SECONDS = 10 * 365 * 86_400
"""The longest duration in the settings, ten years. Infinity is refused, since timers take whole numbers."""

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_BASE_URL = re.compile(r"https?://(\[[0-9a-fA-F:.%]+\]|[^/?#@:\s\"']+)(:\d{1,5})?")
_KEY = re.compile(r"[!-~]{16,}")
_ORIGIN = re.compile(r"\*|null|(?P<scheme>[a-z*][a-z0-9+.*-]*)://(?P<host>[^/?#@\s\"']*)/?")


class Section(BaseModel):
    """The base class of the sections of the configuration file. A section is frozen, and an unknown key in it
    is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Conflict(ValueError):
    """Several settings do not fit together. `sentence` names them, and has no full stop. `keys` are the key
    paths of these settings, relative to the section whose validator raises this error. The mistake is
    reported with the variable of the first setting that the environment sets; if it sets none, with the line
    of the first setting that the file sets.
    """

    def __init__(self, sentence: str, *keys: tuple[str, ...]) -> None:
        super().__init__(sentence)
        self.keys = keys


def _not_bool(remedy: str) -> BeforeValidator:
    """Return a validator for numbers that raises ValueError with `remedy` if the value is true or false.
    pydantic would take these for 1 and 0.
    """

    def refuse_bool(value: object) -> object:
        if isinstance(value, bool):
            raise ValueError(remedy)
        return value

    return BeforeValidator(refuse_bool)


def _parse_off(value: object) -> object:
    """Return "off" for False, because YAML takes a plain `off` for false. Return other values unchanged."""
    return "off" if value is False else value


def _parse_no_seconds(value: object) -> object:
    """Return 0 for False, because YAML takes a plain `off` for false. Return other values unchanged."""
    return 0 if value is False else value


def _parse_digits(value: object) -> object:
    """Convert a text of at most MOST_DIGITS digits to a number, because every value from the environment is
    text. Return any other value unchanged.
    """
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) <= MOST_DIGITS else value


def _parse_origin(value: object) -> object:
    """Return an origin as browsers send it: in lower case, without a default port or a slash at the end.
    Quotes around the origin are dropped, as Ollama does with OLLAMA_ORIGINS. Raises ValueError if a text is
    not an origin. A value that is not text is returned unchanged.
    """
    if not isinstance(value, str):
        return value
    origin = value.strip().strip("\"'").strip().lower()
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise ValueError(
            "not an origin: give SCHEME://HOST, such as https://chat.example.com, or * for all pages"
        )
    scheme, default_port = match["scheme"], DEFAULT_PORTS.get(match["scheme"] or "")
    return f"{scheme}://{match['host'].removesuffix(default_port or ' ')}" if scheme else origin


def _parse_base_url(value: object) -> object:
    """Return the base URL of a server, such as http://other-mac:11435, without a slash at the end. Raises
    ValueError if a text is not such a URL. A value that is not text is returned unchanged.
    """
    if not isinstance(value, str):
        return value
    url = value.strip().removesuffix("/")
    if not _BASE_URL.fullmatch(url):
        raise ValueError("not the address of a server: give http://HOST:PORT, such as http://other-mac:11435")
    return check_http_url(url)


def _parse_key(value: object) -> object:
    """Return an API key unchanged. Raises ValueError if it is too short, or cannot be sent as the token in
    `Authorization: Bearer TOKEN`.
    """
    if isinstance(value, str) and not _KEY.fullmatch(value):
        raise ValueError("give 16 or more letters, digits or signs of ASCII, without spaces")
    return value


def _refuse_comma(url: str) -> str:
    if "," in url:  # the orchestrator gets its addresses as a list with commas in the environment
        raise ValueError("an address must have no comma: write it as %2C")
    return url


WholeNumber = Annotated[int, _not_bool("give a whole number")]
NumberOfSeconds = Annotated[float, _not_bool("give a number of seconds")]
Port = Annotated[WholeNumber, Field(ge=1, le=65535)]
Count = Annotated[WholeNumber, Field(ge=0)]
PositiveCount = Annotated[WholeNumber, Field(ge=1)]
Seconds = Annotated[NumberOfSeconds, Field(gt=0, le=MOST_SECONDS)]
SecondsOrZero = Annotated[NumberOfSeconds, Field(ge=0, le=MOST_SECONDS), BeforeValidator(_parse_no_seconds)]
Address = Annotated[str, Field(min_length=1)]
Origin = Annotated[str, BeforeValidator(_parse_origin)]
BaseUrl = Annotated[str, BeforeValidator(_parse_base_url)]
Key = Annotated[str, BeforeValidator(_parse_key)]
HttpUrl = Annotated[str, AfterValidator(check_http_url)]
ApiUrl = Annotated[HttpUrl, AfterValidator(without_api_path)]
ListedHttpUrl = Annotated[HttpUrl, AfterValidator(_refuse_comma)]
YamlOff = BeforeValidator(_parse_off)

KvBits = Annotated[Literal["none", 8, 4], BeforeValidator(_parse_digits)]
"""How many bits each number in the KV cache has; `none` means that the cache is not quantized."""

KvGroupSize = Annotated[Literal[32, 64, 128], BeforeValidator(_parse_digits)]
"""How many numbers of a quantized KV cache share one scale."""
