"""Tell which models can be imported from Ollama's store, from the headers of its files alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlx_server.model_store import layout
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.gguf.inspection import main_type, plan
from mlx_server.model_store.gguf.reader import UnsupportedGguf
from mlx_server.model_store.making import check_replaceable
from mlx_server.model_store.ollama_store.manifests import OllamaModel, models_in
from vestal.config import Config, canonical, find_named, is_valid_name

MANIFEST_KEY = "ollama"
"""Key in the manifest of an imported model. Its value has the digests of the model's weights and of its
manifest at Ollama.
"""
SOURCE = "ollama:"
DENSE = sys.platform != "darwin"
"""Whether converted weights become float32, which the converter decides by the same rule."""

State = Literal["convertible", "installed", "refused"]


@dataclass(frozen=True)
class Candidate:
    """A model in Ollama's store, and whether it can be imported: its `state` is `convertible`, `installed`
    (it was imported before) or `refused`. `reason` is a clause that says why the model is not convertible.

    `model.bytes` is the model's size in Ollama's store, `needed_bytes` its size in Vestal's store. `notes`
    are sentences about what an import leaves out.
    """

    model: OllamaModel
    state: State
    reason: str = ""
    family: str = ""
    quantization: str = ""
    parameters: int = 0
    needed_bytes: int = 0
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the candidate as a JSON object: the model's name, its size in Ollama's store (`bytes`), and
        the fields of this class except `model`.
        """
        shown = ("state", "reason", "family", "quantization", "parameters", "needed_bytes")
        own = {name: getattr(self, name) for name in shown}
        return {"name": self.model.name, "bytes": self.model.bytes, **own, "notes": list(self.notes)}


def candidates(config: Config, store: Path) -> list[Candidate]:
    """Return for each model in Ollama's `store` whether it can be imported (a `Candidate`), sorted by name.
    Raises ModelStoreError (`model_not_found`) if there is no store.
    """
    return [candidate(config, model) for model in _models(store)]


def find_candidate(config: Config, store: Path, name: str) -> Candidate:
    """Return whether the model `name` in Ollama's `store` can be imported (a `Candidate`). Raises
    ModelStoreError (`model_not_found`) if there is no store or no such model.
    """
    models = _models(store)
    model = find_named(name, models, lambda each: each.name)
    if model is None:
        there = ", ".join(each.name for each in models[:20]) or "none"
        more = f" and {len(models) - 20} more" if len(models) > 20 else ""
        raise ModelStoreError(
            "model_not_found",
            f"Ollama has no model {canonical(name)[:80]} in {store}; there are {there}{more}.",
            "Name one of these, or another folder with --store.",
        )
    return candidate(config, model)


def _models(store: Path) -> list[OllamaModel]:
    try:
        return models_in(store)
    except OSError as error:
        raise ModelStoreError(
            "model_not_found",
            f"There is no store of Ollama at {store} ({error.strerror or error}).",
            "Name its folder with --store DIR, or in OLLAMA_MODELS: it has `manifests` and `blobs`.",
        ) from error


def candidate(config: Config, model: OllamaModel) -> Candidate:
    """Return the candidate for `model`: whether it can be imported and how large it will be, or why it is
    refused.
    """
    weights = model.layer("model")
    if model.fault:
        return Candidate(model, "refused", model.fault)
    family = str(model.about.get("model_family", ""))[:40]
    if weights is None:
        remote = model.about.get("remote_host")
        reason = f"it runs on {str(remote)[:60]}, and not on this machine" if remote else "it has no weights"
        return Candidate(model, "refused", reason, family)
    if model.layer("adapter") is not None:
        return Candidate(model, "refused", "it has an adapter in GGUF, which is not converted", family)
    try:
        size = weights.path.stat().st_size
        if size != weights.bytes:
            raise UnsupportedGguf(f"its file {weights.path.name} has {size} of {weights.bytes} bytes")
        planned = plan(weights.path, keep_arrays=False)
    except UnsupportedGguf as error:
        return Candidate(model, "refused", str(error), family)
    except OSError as error:
        return Candidate(
            model, "refused", f"its file {weights.path} cannot be read ({error.strerror or error})", family
        )
    notes = ["Its image encoder is left out: it reads text only."]
    tensors = [placed.tensor for placed in planned.placed]
    state, reason = _state(config, model)
    return Candidate(
        model,
        state,
        reason,
        str(planned.header.metadata["general.architecture"]),
        str(model.about.get("file_type") or main_type(tensors))[:20],
        sum(tensor.weights for tensor in tensors),
        planned.total_bytes(dense=DENSE),
        tuple(notes if planned.leaves_out_images or model.layer("projector") else ()),
    )


def _state(config: Config, model: OllamaModel) -> tuple[State, str]:
    """Return the state of a model whose weights can be converted, and a clause with the reason for the state.
    The state is `installed` if this version of the model was imported before, and `refused` if its name is
    not valid or is taken. Otherwise it is `convertible`, and the reason is empty.
    """
    name = canonical(model.name)
    if not is_valid_name(name):
        return "refused", "Vestal's models cannot have this name"
    manifest = layout.read_manifest(layout.installed_path(config.models_dir, name))
    imported = manifest.get(MANIFEST_KEY)
    if isinstance(imported, dict) and imported.get("manifest") == model.digest:
        return "installed", "it is imported already"
    try:
        check_replaceable(config, name)
    except ModelStoreError as error:
        return "refused", error.message.partition(": ")[2].rstrip(".") or error.message
    if manifest and not isinstance(imported, dict):
        source = str(manifest.get("source") or "another model")[:100]
        return (
            "refused",
            f"a model of this name is installed ({source}); remove it first: vestal models rm {name}",
        )
    return "convertible", ""
