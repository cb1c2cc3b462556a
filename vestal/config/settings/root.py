"""All sections together: `Settings` as the file has them, and `Config`, which programs use."""

import itertools
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, field_validator, model_validator

from vestal.config.model_names import adapter_name, canonical, find_named, name_key
from vestal.config.paths import Home
from vestal.config.settings.agent import AgentSection
from vestal.config.settings.field_types import Conflict, Section
from vestal.config.settings.mlx import MlxSection
from vestal.config.settings.models import BUILT_IN_MODELS, ModelAdapter, ModelSource
from vestal.config.settings.notifications import NotificationsSection
from vestal.config.settings.ollama import OllamaSection
from vestal.config.settings.orchestrator import OrchestratorSection
from vestal.config.settings.supervision import SupervisionSection

DRAFT = "draft"
"""The tag of a draft model without a name of its own: the draft model of `llama3` is `llama3:draft`."""


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
        with_built_in = built_in | value
        return with_built_in | _drafts_with_sources(with_built_in)

    @model_validator(mode="after")
    def _models_do_not_draft_for_themselves(self) -> Self:
        bases = {name_key(adapter.name): adapter.base for adapter in self.adapters()}
        for name in self.models:
            model, chain, seen = name, [name], set[str]()
            while name_key(model) not in seen and (draft := self.draft_of(model)):
                seen.add(name_key(model))
                model = bases.get(name_key(draft), draft)
                chain.append(find_named(draft, self.models, str) or draft)
                if name_key(draft) == name_key(name) and len(chain) == 2:
                    sentence = f"models: {name} is its own `draft`: name a smaller model"
                    raise Conflict(sentence, ("models", name, "draft"))
                if name_key(model) == name_key(name):
                    raise Conflict(
                        f"models: each of {', '.join(chain)} has the next as its `draft`, in a circle: "
                        "take `draft` out of the smallest",
                        ("models", name, "draft"),
                    )
        return self

    def draft_of(self, model: str) -> str | None:
        """Return the name of the draft model of `model`; None if none is configured, or if drafting is
        off.
        """
        name = find_named(model, self.models, str)
        settings = self.models[name] if name is not None else None
        if name is None or settings is None or not settings.draft or not self.mlx.drafting:
            return None
        return adapter_name(name, DRAFT) if settings.draft_source else canonical(settings.draft)

    @model_validator(mode="after")
    def _adapters_have_names_of_their_own(self) -> Self:
        taken = {name_key(name): name for name in self.models}
        for adapter in self.adapters():
            if other := taken.get(name_key(adapter.name)):
                base = find_named(adapter.base, self.models, str) or adapter.base
                sentence = f"models: an adapter of {adapter.base} is named like {other}: rename it"
                raise Conflict(sentence, ("models", base, "adapters"))
            taken[name_key(adapter.name)] = adapter.name
        return self

    def adapters(self) -> list[ModelAdapter]:
        """Return the configured adapters of all models."""
        return [
            ModelAdapter(adapter_name(model, name), canonical(model), source)
            for model, settings in self.models.items()
            for name, source in settings.adapters.items()
        ]

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"mlx": self.mlx.port, "agent": self.agent.port, "orchestrator": self.orchestrator.port}
        for one, other in itertools.combinations(ports, 2):
            if ports[one] == ports[other]:
                sentence = f"{one}.port and {other}.port are both {ports[one]}: give each a port of its own"
                raise Conflict(sentence, (one, "port"), (other, "port"))
        return self

    @model_validator(mode="after")
    def _open_server_needs_key(self) -> Self:
        for number, address in enumerate(self.mlx.bind):
            if not self.mlx.api_key and not _is_loopback(address):
                raise Conflict(
                    f"mlx.bind opens the server to {address} without a key: set mlx.api_key, or take the "
                    "address out; loopback and the Docker bridge are served without an entry",
                    ("mlx", "bind", str(number)),
                    ("mlx", "bind"),
                )
        return self


def _drafts_with_sources(models: Mapping[str, ModelSource]) -> dict[str, ModelSource]:
    """Return the draft models that `models` lacks: those for which a model's `draft` is a source, such as
    `hf:REPO`, and not the name of a model. The keys are the names that they get, such as `llama3:draft` for
    the draft model of `llama3`. Raises Conflict if `models` has a different model of that name.
    """
    found = {}
    for name, settings in models.items():
        if settings.draft_source is None:
            continue
        draft, source = adapter_name(name, DRAFT), ModelSource(source=settings.draft_source)
        same = find_named(draft, models, str)
        if same is not None and models[same] != source:
            raise Conflict(f"the draft of {name} is named like {same}: rename {same}", (same,))
        if same is None:
            found[draft] = source
    return found


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
        """Return a model's name as the configuration spells it; None if the model is not configured."""
        return find_named(name, self.models, str)

    def adapter(self, name: str) -> ModelAdapter | None:
        """Return the configured LoRA adapter that is served as the model `name`; None if there is none.

        Names are compared as Ollama compares them: upper and lower case are equal, and a missing tag means
        `latest`.
        """
        return find_named(name, self.adapters(), lambda adapter: adapter.name)

    def kv_quantization(self, name: str) -> tuple[int, int] | None:
        """Return the bits and the group size of a model's quantized KV cache; None if the cache is not
        quantized.

        A model with a configured adapter has the values of its base model.
        """
        adapter = self.adapter(name)
        source = self.model_source(adapter.base if adapter else name)
        bits = (source and source.kv_bits) or self.mlx.kv_bits
        group_size = (source and source.kv_group_size) or self.mlx.kv_group_size
        return None if bits == "none" else (bits, group_size)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
