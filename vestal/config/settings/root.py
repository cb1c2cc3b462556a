"""All sections together: `Settings` as the file has them, and `Config`, which programs use."""

from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, field_validator, model_validator

from vestal.config.model_names import find_named, name_key
from vestal.config.paths import Home
from vestal.config.settings.agent import AgentSection
from vestal.config.settings.field_types import Section
from vestal.config.settings.mlx import MlxSection
from vestal.config.settings.models import BUILT_IN_MODELS, ModelSource
from vestal.config.settings.notifications import NotificationsSection
from vestal.config.settings.ollama import OllamaSection
from vestal.config.settings.orchestrator import OrchestratorSection
from vestal.config.settings.supervision import SupervisionSection


class Settings(Section):
    """Everything that a configuration file may contain."""

    mlx: MlxSection = MlxSection()
    models: dict[str, ModelSource] = {}
    agent: AgentSection = AgentSection()
    supervision: SupervisionSection = SupervisionSection()
    ollama: OllamaSection = OllamaSection()
    orchestrator: OrchestratorSection = OrchestratorSection()
    notifications: NotificationsSection = NotificationsSection()

    @field_validator("models")
    @classmethod
    def _with_built_in_models(cls, value: dict[str, ModelSource]) -> dict[str, ModelSource]:
        given = {name_key(name) for name in value}
        built_in = {name: source for name, source in BUILT_IN_MODELS.items() if name_key(name) not in given}
        return built_in | value

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"mlx.port": self.mlx.port, "agent.port": self.agent.port}
        ports["orchestrator.port"] = self.orchestrator.port
        for key, port in ports.items():
            other = next((name for name, number in ports.items() if number == port and name != key), None)
            if other:
                raise ValueError(f"{key} and {other} are both {port}: give each a port of its own")
        return self

    @model_validator(mode="after")
    def _open_server_needs_key(self) -> Self:
        open_to = [address for address in self.mlx.bind if not _is_loopback(address)]
        if open_to and not self.mlx.api_key:
            raise ValueError(f"mlx.bind opens the server to {open_to[0]} without a key: set mlx.api_key")
        return self


class Config(Settings):
    """The settings in force, with the home that they belong to and the file that they came from."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    models: dict[str, ModelSource] = BUILT_IN_MODELS
    home: Home
    file: Path | None = None

    @property
    def models_dir(self) -> Path:
        """Return the folder of installed models: `mlx.store`, or `$VESTAL_HOME/models`."""
        return self.mlx.store or self.home.models

    def model_source(self, name: str) -> ModelSource | None:
        """Return the configured source of a model, however its name is spelled; None if there is none."""
        key = self.configured_name(name)
        return None if key is None else self.models[key]

    def configured_name(self, name: str) -> str | None:
        """Return the name that the configuration has for a model; None if it has none."""
        return find_named(name, self.models, str)

    def kv_quantization(self, name: str) -> tuple[int, int] | None:
        """Return bits and group size of a model's KV cache; None if it is not quantized."""
        source = self.model_source(name)
        bits = (source and source.kv_bits) or self.mlx.kv_bits
        group_size = (source and source.kv_group_size) or self.mlx.kv_group_size
        return None if bits == "none" else (bits, group_size)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
