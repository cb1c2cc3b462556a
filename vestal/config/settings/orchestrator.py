"""The section `orchestrator`: the containers that work on tasks."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from vestal.config import units
from vestal.config.settings.field_types import (
    Conflict,
    Count,
    ListedHttpUrl,
    NumberOfSeconds,
    Port,
    PositiveCount,
    Section,
    WholeNumber,
    YamlOff,
)
from vestal.config.urls import check_http_url

MIN_MEMORY_BYTES = 64 * 1024 * 1024


def _by_agent(value: object) -> object:
    """Convert the setting `knowledge` to a mapping from each agent to the folder that it may search, and
    return it. A single folder is for the agent `docs`, and becomes `{"docs": folder}`. Any other value is
    returned as it is.

    Raises ValueError for text that begins with `{`: it was meant as a mapping, but could not be parsed as
    YAML before.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):  # text that could not be read as YAML
        raise ValueError("give a folder, or a folder for each agent, such as {docs: notes, reader: papers}")
    return {"docs": value} if isinstance(value, str | Path) else value


def _refuse_comma(folder: Path) -> Path:
    if "," in str(folder):  # the orchestrator gets its folders as a list with commas in the environment
        raise ValueError("a folder's path must have no comma: rename it, or name one above it")
    return folder


def _check_postgres_url(value: str) -> str:
    """Return a Postgres URL unchanged. Raises ValueError if it is not one, or if a character such as @ or /
    in its password is not escaped. The orchestrator refuses such a URL too.
    """
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("postgres", "postgresql") and len(parts.path) > 1 and (parts.port or 1) > 0
        has_host = bool(parts.hostname) or "host=" in parts.query  # such as the folder of a Unix socket
        valid = valid and has_host and parts.netloc.count("@") == value.count("@") <= 1
        valid = valid and not re.search(r"\s|#|%(?![0-9A-Fa-f]{2})", value)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            "give it as postgresql://USER:PASSWORD@HOST:5432/DATABASE; in the password, characters such as "
            "@ : / ? # [ ] % are written %40 and so on"
        )
    return value


def _check_url(url: str) -> str:
    """Return the address of a server unchanged. It may be empty, and its `http://` may be missing. Raises
    ValueError if it is anything else.
    """
    if url.strip():
        check_http_url(url.strip() if "://" in url else f"http://{url.strip()}")
    return url


def _check_urls(urls: str) -> str:
    """Return a list of addresses, separated by commas, unchanged. Raises ValueError if one is invalid."""
    for url in urls.split(","):
        _check_url(url)
    return urls


def _check_home(path: Path) -> Path:
    """Return a path unchanged. Raises ValueError if it begins with `~NAME`, and there is no user NAME."""
    try:
        path.expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of a user who is unknown here: give the whole path") from None
    return path


PostgresUrl = Annotated[str, AfterValidator(_check_postgres_url)]
ServerUrl = Annotated[str, AfterValidator(_check_url)]
ServerUrls = Annotated[str, AfterValidator(_check_urls)]
HomePath = Annotated[Path, AfterValidator(_check_home)]

# This interval and the bounds below are those of `orchestrator/config.py`. Outside them, the orchestrator
# would end with a sentence about a variable that the user has not set. A test compares the two files.
Interval = Annotated[NumberOfSeconds, Field(ge=0.1, le=7 * 86_400)]

# The name of an agent is a folder's name in the containers, and a part of a list in the environment.
# The pattern has no `{0,63}`: with `\w` it took 30 ms of CPU time at each start of each program.
AgentName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=64)]
Knowledge = Annotated[
    dict[AgentName, Annotated[HomePath, AfterValidator(_refuse_comma)]],
    BeforeValidator(_by_agent),
    Field(min_length=1),
]


class OrchestratorSection(Section):
    """The orchestrator: its API service, the service `nightly`, which works on the agents' knowledge once a
    night, and further workers.

    `mode`                        docker, native or off; auto: docker if a Docker engine answers, else native
    `mem_limit`                   the memory of each container, swap included
    `cycle_interval_s`            the most seconds between two cycles; in each, the orchestrator checks the
                                  LLM hosts, and then updates the agents' knowledge
    `health_monitor_interval_s`   how often the LLM hosts are checked between cycles
    `max_concurrent`              the most LLM calls at once
    `nightly_hour`                the hour, in this machine's local time, at which `nightly` begins its work
    `knowledge`                   a folder of text for each agent; a single folder is that of the agent `docs`
    `rerank_model`                the model that ranks what a search has found; None: no model does
    `agents`                      the file that describes the agents
    `max_answer_tokens`           the longest answer of one step of a task
    `context_tokens`              how much of a model's context is used
    `more_mlx_urls`               MLX servers on other machines
    `more_ollama_urls`            Ollama servers on other machines
    `more_api_key`                the key that is sent to those servers
    `mlx_api_url`                 this machine's MLX server; None: worked out from its port
    `mac_llm_url`                 an older name for the MLX server's URL; None: the same as `mlx_api_url`
    `recovery_webhook_url`        the URL of the host agent's `POST /recover`; None: worked out from the host
                                  agent's port
    `database_url`                a Postgres with pgvector; None: SQLite
    `workers`                     more containers that only work on tasks; they need `database_url`
    `tasks_at_once`               the most tasks that all workers together work on at once
    `max_unfinished_tasks`        the most tasks that are queued or running; further ones are refused
    """

    port: Port = 8088
    mode: Annotated[Literal["auto", "docker", "native", "off"], YamlOff] = "auto"
    mem_limit: str = "2g"
    cycle_interval_s: Interval = 300.0
    health_monitor_interval_s: Interval = 300.0
    max_concurrent: Annotated[PositiveCount, Field(le=64)] = 2
    nightly_hour: Annotated[WholeNumber, Field(ge=0, le=23)] = 3
    knowledge: Knowledge = {"docs": Path("docs")}
    embed_model: str = "all-minilm"
    rerank_model: str | None = None
    chat_model: str = "smollm2:135m"
    agents: HomePath = Path("deploy/agents.yaml")
    max_answer_tokens: Annotated[PositiveCount, Field(le=32_768)] = 256
    context_tokens: Annotated[WholeNumber, Field(ge=512, le=16_777_216)] = 4096
    more_mlx_urls: list[ListedHttpUrl] = []
    more_ollama_urls: list[ListedHttpUrl] = []
    more_api_key: str | None = Field(default=None, repr=False)
    mlx_api_url: ServerUrls | None = None
    mac_llm_url: ServerUrls | None = None
    recovery_webhook_url: ServerUrl | None = None
    database_url: PostgresUrl | None = Field(default=None, repr=False)
    workers: Count = 0
    tasks_at_once: Annotated[PositiveCount, Field(le=1024)] = 16
    max_unfinished_tasks: Annotated[PositiveCount, Field(le=1_000_000)] = 1000

    @model_validator(mode="after")
    def _workers_have_postgres(self) -> Self:
        if self.workers and not self.database_url:
            sentence = "`workers` share their tasks through Postgres: set `database_url` as well"
            raise Conflict(sentence, ("workers",))
        return self

    @field_validator("mem_limit")
    @classmethod
    def _is_large_enough(cls, value: str) -> str:
        if units.size_bytes(value) < MIN_MEMORY_BYTES:
            raise ValueError("too small for the orchestrator to start: give at least 64m")
        return value
