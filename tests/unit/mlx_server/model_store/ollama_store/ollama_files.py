"""A store of Ollama with small models, as its `pull` and `create` write it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.unit.mlx_server.model_store.gguf import gguf_files

TEMPLATE = (
    "{{ if .System }}<|im_start|>s {{ .System }}{{ end }}<|im_start|>u {{ .Prompt }}<|im_end|>{{ .Response }}"
)


class OllamaStore:
    """Writes models into the folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs").mkdir(parents=True)
        (path / "manifests").mkdir()

    def blob(self, content: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(content).hexdigest()
        (self.path / "blobs" / f"sha256-{digest}").write_bytes(content)
        return f"sha256:{digest}", len(content)

    def weights(self, architecture: str = "llama", **metadata: Any) -> bytes:
        """Return a GGUF file of a small random model."""
        model = gguf_files.random_model(gguf_files.CONFIGS[architecture])
        path = self.path / "weights.gguf"
        tensors = gguf_files.tensors_of(architecture, model)
        gguf_files.write(path, gguf_files.metadata_of(architecture) | metadata, tensors)
        content = path.read_bytes()
        path.unlink()
        return content

    def add(
        self, name: str, layers: dict[str, bytes], about: dict[str, Any] | None = None, host: str = ""
    ) -> Path:
        """Write a model `namespace/model:tag` with these layers; return the path of its manifest."""
        path, _, tag = name.partition(":")
        manifest = self.path / "manifests" / (host or "registry.ollama.ai")
        manifest = manifest / (path if "/" in path else f"library/{path}") / tag
        manifest.parent.mkdir(parents=True, exist_ok=True)
        known = about if about is not None else {"model_family": "llama", "model_type": "0.1M"}
        digest, size = self.blob(json.dumps(known).encode())
        entries = []
        for kind, content in layers.items():
            layer, bytes_ = self.blob(content)
            entries.append(
                {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": layer, "size": bytes_}
            )
        config = {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": digest,
            "size": size,
        }
        manifest.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": entries}))
        return manifest
