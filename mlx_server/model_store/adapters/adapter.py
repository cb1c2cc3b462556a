"""Read an adapter's folder, and check it against the model that it adapts, without mlx."""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_server.model_store.adapters import settings, tensors
from mlx_server.model_store.adapters.settings import AdapterSettings, UnusableAdapter
from mlx_server.model_store.adapters.tensors import AdapterTensor, Form
from mlx_server.model_store.files import weight_files
from mlx_server.model_store.files.fingerprint import sample_file
from mlx_server.model_store.files.weight_files import UnreadableModel, damage_explained, stored_bytes

CONFIG = "adapter_config.json"
WEIGHTS: Mapping[Form, str] = {"mlx-lm": "adapters.safetensors", "peft": "adapter_model.safetensors"}
"""The name of the file with an adapter's tensors, in each form."""
MAX_CONFIG_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Adapter:
    """An adapter that can be applied to its base model.

    `bytes` is the size of its files, `weights_bytes` the size of its tensors, `parameters` the number of
    weights in them. `digest` (sha256, hex) covers its configuration and a sample of each tensor. `modified`
    is in seconds since the epoch.
    """

    path: Path
    settings: AdapterSettings
    bytes: int
    weights_bytes: int
    parameters: int
    digest: str
    modified: float

    @property
    def weights_file(self) -> Path:
        return self.path / WEIGHTS[self.settings.form]

    def as_json(self) -> dict[str, Any]:
        """Return the adapter as a JSON object: path, method, rank, scale, size in bytes, and digest."""
        own = self.settings
        return {
            "path": str(self.path),
            "method": own.method,
            "rank": own.rank,
            "scale": own.scale,
            "bytes": self.bytes,
            "digest": self.digest,
        }


def read_adapter(folder: Path, base: Path, base_digest: str) -> Adapter:
    """Return the adapter in `folder`, checked against the model in the folder `base`, whose files have the
    digest `base_digest`.

    Raises UnreadableModel, which names the file and the fault, if files are missing or invalid or do not suit
    the base.
    """
    with damage_explained(folder):
        return _read(folder, _stamp(folder), base, base_digest)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the name, mtime_ns and size of each of the adapter's files. Raises UnreadableModel if the folder
    or its configuration is missing.
    """
    if not folder.is_dir():
        raise UnreadableModel(
            f"{folder}: there is no such folder; the adapter needs {CONFIG} and its weights"
        )
    found = [path for name in (CONFIG, *WEIGHTS.values()) if (path := folder / name).is_file()]
    if folder / CONFIG not in found:
        raise UnreadableModel(f"{folder / CONFIG}: it is missing; it holds the rank and the scale")
    return tuple((path.name, (state := path.stat()).st_mtime_ns, state.st_size) for path in found)


@functools.lru_cache(maxsize=256)
def _read(folder: Path, stamp: tuple[tuple[str, int, int], ...], base: Path, base_digest: str) -> Adapter:
    """Return the adapter in `folder`, checked against the model in `base`. Raises UnreadableModel, or another
    error from reading the files, if they are missing, invalid or do not suit the base.

    The result is cached by all arguments, so that the adapter is read again if its files (`stamp`) or those
    of the base (`base_digest`) have changed.
    """
    if (size := (folder / CONFIG).stat().st_size) > MAX_CONFIG_BYTES:
        raise UnreadableModel(f"{folder / CONFIG}: it has {size} bytes, and may have {MAX_CONFIG_BYTES}")
    config = weight_files.read_json_object(folder / CONFIG)
    try:
        own = settings.read_settings(config)
    except UnusableAdapter as error:
        raise UnreadableModel(f"{folder / CONFIG}: {error}") from error
    path = folder / WEIGHTS[own.form]
    if not path.is_file():
        raise UnreadableModel(f"{path}: it is missing; it holds the adapter's weights")
    _, header = weight_files.read_header(path)
    try:
        _check(own, header, base)
    except UnusableAdapter as error:
        raise UnreadableModel(f"{path}: {error}") from error
    digest = hashlib.sha256((folder / CONFIG).read_bytes() + struct.pack("<Q", path.stat().st_size))
    sample_file(path, digest)
    sizes = {name: (mtime, size) for name, mtime, size in stamp if name in (CONFIG, path.name)}
    return Adapter(
        path=folder,
        settings=own,
        bytes=sum(size for _, size in sizes.values()),
        weights_bytes=sum(map(stored_bytes, header.values())),
        parameters=sum(math.prod(entry["shape"]) for entry in header.values()),
        digest=digest.hexdigest(),
        modified=max(mtime for mtime, _ in sizes.values()) / 1e9,
    )


def _check(own: AdapterSettings, header: Mapping[str, Any], base: Path) -> None:
    """Raise UnusableAdapter if a layer that the adapter's settings name, or a tensor in `header` (of its
    safetensors file), does not match the model in the folder `base`.
    """
    known = tensors.layer_shapes(weight_files.read_headers(base), weight_files.read_config(base))
    if unknown := tensors.names_no_layer(own.keys, known):
        raise UnusableAdapter(f"keys name no layer of the model: {', '.join(unknown[:5])}")
    for layer, parts in layers_of(own, header).items():
        shapes = {part: tensor.shape(header[tensor.name]["shape"]) for part, tensor in parts.items()}
        if reason := tensors.wrong_layer(layer, shapes, own.rank, known):
            raise UnusableAdapter(f"{reason}; train it on this model, with these settings")


def layers_of(own: AdapterSettings, names: Mapping[str, Any]) -> dict[str, dict[str, AdapterTensor]]:
    """Return the tensors of each adapted layer, by layer and part (`lora_a`, `lora_b`, `m`).

    `names` has the tensors' names as its keys. Raises UnusableAdapter if there are none, or if one is not
    part of an adapter.
    """
    found: dict[str, dict[str, AdapterTensor]] = {}
    for name in names:
        if (tensor := tensors.parse_tensor(name, own.form)) is None:
            raise UnusableAdapter(f"tensor {name[:100]} is not part of a LoRA adapter that can be applied")
        found.setdefault(tensor.layer, {})[tensor.part] = tensor
    if not found:
        raise UnusableAdapter("it holds no tensors")
    return found
