"""Read the manifests in Ollama's store, and find the files that they name. Nothing is written.

<store>/manifests/HOST/NAMESPACE/MODEL/TAG      JSON: the config and the layers, each with its sha256
<store>/blobs/sha256-HEX                        weights (GGUF), template, system prompt, parameters, license
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import DAMAGE
from vestal.platform.exhaustion import raise_if_exhausted

MAX_MANIFEST_BYTES = 1024 * 1024
MAX_TEXT_BYTES = 1024 * 1024
"""The largest template, system prompt, license, or list of parameters or messages that is read."""
_MAX_MODELS = 10_000
_DIGEST = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")
_MEDIA_TYPE = "application/vnd.ollama.image."
_HOSTS = {"registry.ollama.ai": ""}
"""Maps a registry's host to the prefix of its models' names, where that is not the host itself."""
_SYSTEM_STORE = Path("/usr/share/ollama/.ollama/models")
"""The store of the system service that Ollama's installer sets up on Linux."""


@dataclass(frozen=True)
class Layer:
    """One file of a model: its kind (`model`, `template`, `params`, …), sha256 (hex), path and size."""

    kind: str
    digest: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class OllamaModel:
    """One model in Ollama's store. `digest` is the sha256 (hex) of its manifest; `fault` says why the model
    cannot be read, "" if it can.

    `about` is Ollama's own description: `model_family`, `model_type` (a size), `renderer`, `remote_host`.
    """

    name: str
    digest: str = ""
    layers: tuple[Layer, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fault: str = ""

    def layer(self, kind: str) -> Layer | None:
        """Return the first layer of this kind; None if there is none."""
        return next((layer for layer in self.layers if layer.kind == kind), None)

    @property
    def bytes(self) -> int:
        """Return the total size of all layers."""
        return sum(layer.bytes for layer in self.layers)


def default_store() -> Path:
    """Return the folder of Ollama's models: OLLAMA_MODELS if set, else the user's folder, or the system
    service's if only that exists.
    """
    if named := os.environ.get("OLLAMA_MODELS"):
        return Path(named).expanduser()
    own = Path.home() / ".ollama" / "models"
    return own if (own / "manifests").is_dir() or not _SYSTEM_STORE.is_dir() else _SYSTEM_STORE


def models_in(store: Path) -> list[OllamaModel]:
    """Return the models in the store, sorted by name. Raises OSError if there is no store."""
    manifests = store / "manifests"
    os.listdir(manifests)
    found = (read_model(store, path) for path in _manifest_files(manifests))
    return sorted(found, key=lambda model: model.name)


def _manifest_files(manifests: Path) -> Iterator[Path]:
    count = 0
    for folder, folders, files in os.walk(manifests):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for file in files:
            path = Path(folder) / file
            if len(path.relative_to(manifests).parts) == 4 and not file.startswith("."):
                count += 1
                if count > _MAX_MODELS:
                    return
                yield path


def read_model(store: Path, path: Path) -> OllamaModel:
    """Return the model whose manifest is the file `path`; if it cannot be read, a model with a `fault`."""
    host, namespace, model, tag = path.relative_to(store / "manifests").parts
    prefix = "" if (host, namespace) == ("registry.ollama.ai", "library") else f"{namespace}/"
    host = _HOSTS.get(host, f"{host}/")
    name = f"{host}{prefix}{model}:{tag}"
    try:
        raw = read_file(path, MAX_MANIFEST_BYTES)
        manifest = json.loads(raw)
        layers = tuple(_layer(store, entry) for entry in manifest["layers"])
        config = _layer(store, manifest["config"])
        about = json.loads(read_file(config.path, MAX_TEXT_BYTES)) if config.path.is_file() else {}
    except DAMAGE as error:
        raise_if_exhausted(error)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return OllamaModel(name, fault=f"its manifest {path} cannot be read ({reason[:100]})")
    known = about if isinstance(about, dict) else {}
    return OllamaModel(name, hashlib.sha256(raw).hexdigest(), layers, known)


def _layer(store: Path, entry: Mapping[str, Any]) -> Layer:
    digest, kind, size = entry["digest"], entry["mediaType"], entry["size"]
    match = _DIGEST.fullmatch(digest)
    if match is None or not isinstance(kind, str) or type(size) is not int:
        raise ValueError(f"a layer has the digest {str(digest)[:80]!r}")
    path = store / "blobs" / f"sha256-{match['hex']}"
    return Layer(kind.removeprefix(_MEDIA_TYPE), match["hex"], path, size)


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a file. Raises ValueError if it is larger than `limit` bytes, and OSError if it
    cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path.name} has more than {limit} bytes")
    return content
