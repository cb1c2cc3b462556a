"""The section `orchestrator`: the containers that work on tasks."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from vestal.config import units
from vestal.config.settings.field_types import (
    Count,
    ListedHttpUrl,
    Port,
    PositiveCount,
    Seconds,
    Section,
    WholeNumber,
)

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


# The name of an agent is a folder's name in the containers, and a part of a list in the environment.
# The pattern has no `{0,63}`: with `\w` it took 30 ms of CPU time at each start of each program.
AgentName = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=64)]
Knowledge = Annotated[
    dict[AgentName, Annotated[Path, AfterValidator(_refuse_comma)]],
    BeforeValidator(_by_agent),
    Field(min_length=1),
]


def _check_postgres_url(value: str) -> str:
    if not re.match(r"postgres(ql)?://[^/\s]+/[^/\s]+$", value):
        raise ValueError("give it as postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    return value


PostgresUrl = Annotated[str, AfterValidator(_check_postgres_url)]


class OrchestratorSection(Section):
    """The orchestrator: its API service, the service `nightly`, which works on the agents' knowledge once a
    night, and further workers.

    `mode`                        docker, native or off; auto: docker if a Docker engine answers, else native
    `mem_limit`                   the memory of each container, swap included
    `cycle_interval_s`            the most seconds between two cycles; in each, the orchestrator checks the
                                  LLM hosts, and then updates the agents' knowledge
    `health_monitor_interval_s`   how often the LLM hosts are checked between cycles
    `max_concurrent`              the most LLM calls at once
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
    mode: Literal["auto", "docker", "native", "off"] = "auto"
    mem_limit: str = "2g"
    cycle_interval_s: Seconds = 300.0
    health_monitor_interval_s: Seconds = 300.0
    max_concurrent: PositiveCount = 2
    knowledge: Knowledge = {"docs": Path("docs")}
    embed_model: str = "all-minilm"
    rerank_model: str | None = None
    chat_model: str = "smollm2:135m"
    agents: Path = Path("deploy/agents.yaml")
    max_answer_tokens: PositiveCount = 256
    context_tokens: Annotated[WholeNumber, Field(ge=512)] = 4096
    more_mlx_urls: list[ListedHttpUrl] = []
    more_ollama_urls: list[ListedHttpUrl] = []
    more_api_key: str | None = Field(default=None, repr=False)
    mlx_api_url: str | None = None
    mac_llm_url: str | None = None
    recovery_webhook_url: str | None = None
    database_url: PostgresUrl | None = Field(default=None, repr=False)
    workers: Count = 0
    tasks_at_once: PositiveCount = 16
    max_unfinished_tasks: Annotated[PositiveCount, Field(le=1_000_000)] = 1000

    @model_validator(mode="after")
    def _workers_have_postgres(self) -> Self:
        if self.workers and not self.database_url:
            raise ValueError("`workers` share their tasks through Postgres: set `database_url` as well")
        return self

    @field_validator("mem_limit")
    @classmethod
    def _is_large_enough(cls, value: str) -> str:
        if units.size_bytes(value) < MIN_MEMORY_BYTES:
            raise ValueError("too small for the orchestrator to start: give at least 64m")
        return value
