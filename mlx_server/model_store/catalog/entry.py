"""Describe a model on disk in the terms of Ollama's API, from the files of its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_server.memory_forecast.text_config import text_config
from mlx_server.model_store.adapters import Adapter
from mlx_server.model_store.catalog.folders import ModelFolder
from mlx_server.model_store.files import model_folder
from mlx_server.model_store.files.model_kind import Kind
from mlx_server.model_store.files.weight_files import damage_explained
from mlx_server.model_store.preset import Preset
from vestal.config import canonical


@dataclass(frozen=True)
class ModelEntry:
    """One model on disk, in the terms of Ollama's `/api/tags` and `/api/show`.

    `name` is canonical. `bytes` is the size of all files, `weights_bytes` that of the tensors. `digest`
    (sha256, hex) identifies the model by its configuration, its tokenizer, the headers and sizes of its
    weight files, and its preset. `modified` is in seconds since the epoch.

    `weights_name` is the name under which an engine loads the weights: a model that was made from another one
    has its parent's, so that both share the weights in memory. `parameters` counts the weights.
    `architecture` has the figures of `/api/show`, such as `embedding_length`, under their names without the
    model family. `no_images_reason` says why a model that was made for images is served for text only; else
    it is empty.

    `adapter` is added to the weights in `path`, which are the weights of `preset.parent`. Models with the
    same weight files, configuration, tokenizer and templates have the same `weights_id`, and share one copy
    in memory. `draft` is the smaller model that drafts tokens for this one.
    """

    name: str
    path: Path
    kind: Kind
    bytes: int
    weights_bytes: int
    modified: float
    format: str
    family: str
    parameter_size: str
    quantization: str
    context_tokens: int
    digest: str
    weights_name: str = ""
    parameters: int = 0
    architecture: dict[str, int] = field(default_factory=dict, hash=False)
    capabilities: tuple[str, ...] = ()
    license: str = ""
    no_images_reason: str = ""
    preset: Preset = Preset()
    adapter: Adapter | None = None
    weights_id: str = ""
    draft: ModelEntry | None = None

    @property
    def loaded_as(self) -> str:
        """Return the name under which the engine loads this model's weights: `weights_name`, or `name` if
        that is empty.
        """
        return self.weights_name or self.name

    @property
    def files_id(self) -> str:
        """Return an id of the files from which an engine loads this model: weights, configuration, tokenizer,
        templates and adapter. It changes if one of them is changed or replaced, even by one of the same size.
        """
        adapter = self.adapter
        return f"{self.weights_id} {adapter.digest} {adapter.modified}" if adapter else self.weights_id

    @property
    def made_from(self) -> str:
        """Return, as text for people, the parent and the adapter that the model was made from; "" if it was
        not made from another model.
        """
        if self.adapter is None:
            return self.preset.parent
        own = self.adapter.settings
        return f"{self.preset.parent or self.path} + {own.method} of rank {own.rank}"

    def as_json(self) -> dict[str, Any]:
        """Return the model as the JSON object that `vestal models list --json` prints."""
        hidden = ("preset", "license", "architecture", "adapter", "weights_id", "draft")
        shown = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in hidden}
        adapter = {"adapter": self.adapter.as_json()} if self.adapter else {}
        draft = {"draft": self.draft.name} if self.draft else {}
        return shown | {"path": str(self.path), "parent": self.preset.parent} | adapter | draft


@dataclass(frozen=True)
class BrokenModel:
    """A model that is on disk but cannot be loaded; `reason` names the fault and, where it can, the file.

    With `has_wrong_draft`, the fault is that its draft model does not suit it.
    """

    name: str
    reason: str
    has_wrong_draft: bool = False


def entry_of(name: str, folder: Path, context_tokens: int | None = None) -> ModelEntry:
    """Return the model in `folder` as an entry with the name `name`; the folder may be anywhere.

    `context_tokens` is the configured context, which is reduced to the model's own if that is shorter. Raises
    UnreadableModel if the folder does not hold a model that can be loaded.
    """
    found = ModelFolder(canonical(name), folder, context_tokens)
    with damage_explained(folder):
        return entry_in(found, model_folder.read_facts(folder))


def entry_in(found: ModelFolder, facts: model_folder.ModelFacts) -> ModelEntry:
    """Return the model in the folder `found` as an entry; `facts` are what its files say."""
    context_tokens = found.context_tokens
    return ModelEntry(
        name=found.name,
        path=found.folder,
        kind=facts.kind,
        bytes=facts.bytes,
        weights_bytes=facts.weights_bytes,
        modified=found.installed_at if found.preset is not None else facts.modified,
        format="mlx",
        family=facts.family,
        parameter_size=_format_count(facts.parameters),
        quantization=facts.quantization,
        context_tokens=min(context_tokens or facts.context_tokens, facts.context_tokens),
        digest=facts.digest,
        parameters=facts.parameters,
        architecture=_architecture(facts.config),
        capabilities=facts.capabilities,
        license=facts.license,
        no_images_reason=facts.no_images_reason,
        weights_id=f"{facts.digest}-{facts.texts_digest}-{facts.weights_files}",
    )


_FIGURES = {
    "embedding_length": ("hidden_size", "n_embd"),
    "block_count": ("num_hidden_layers", "n_layer"),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads",),
    "vocab_size": ("vocab_size",),
}
"""Maps Ollama's name for a figure of an architecture to its names in `config.json`; GPT-2's name is
the last.
"""


def _architecture(config: dict[str, Any]) -> dict[str, int]:
    """Return the architecture's figures by Ollama's names, from the text model's configuration. A figure that
    is not known under any of its names is left out.
    """
    own = text_config(config)
    figures = {name: next((own[k] for k in keys if k in own), None) for name, keys in _FIGURES.items()}
    return {name: value for name, value in figures.items() if isinstance(value, int) and value > 0}


def _format_count(parameters: int) -> str:
    """Return the number of parameters as text in Ollama's form: `134.52M`, `8.0B`."""
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.2f}M"
