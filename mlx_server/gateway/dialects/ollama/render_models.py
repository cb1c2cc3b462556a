"""Writes models as Ollama does: those installed, those running, and one in detail."""

from __future__ import annotations

from typing import Any

from mlx_server import protocol
from mlx_server.gateway.dialects.ollama.render import iso_time
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files.model_folder import chat_template

NO_EXPIRY_S = 100 * 365 * 86_400.0
"""How far in the future a model expires that stays loaded: Ollama has no other way to say it."""


def tag(entry: ModelEntry) -> dict[str, Any]:
    """Return an installed model as /api/tags lists it."""
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": iso_time(entry.modified),
        "size": entry.bytes,
        "digest": entry.digest,
        "details": _details(entry),
    }


def running(report: protocol.LoadedModelReport, entry: ModelEntry | None, wall_s: float) -> dict[str, Any]:
    """Return a loaded model as /api/ps lists it; `entry` is None where its files were removed meanwhile."""
    size_bytes = report.bytes + report.kv_bytes
    expires_in_s = NO_EXPIRY_S if report.expires_in_s is None else report.expires_in_s
    return {
        "name": report.model,
        "model": report.model,
        "size": size_bytes,
        "size_vram": size_bytes if report.on_gpu else 0,  # clients show it as a share of `size`
        "digest": entry.digest if entry else "",
        "details": _details(entry) if entry else {},
        "expires_at": iso_time(wall_s + expires_in_s),
        "context_length": report.context_tokens,
    }


def shown(entry: ModelEntry) -> dict[str, Any]:
    """Return an installed model as /api/show does."""
    template = chat_template(entry.path) if entry.kind == "generate" else ""
    return {
        "modelfile": f"# made by Vestal\nFROM {entry.path}\n",
        "parameters": "",
        "template": template,
        "license": "",
        "details": _details(entry),
        "model_info": {
            f"{entry.family}.context_length": entry.context_tokens,
            "general.architecture": entry.family,
            "general.file_bytes": entry.bytes,
        },
        "capabilities": _capabilities(entry, template),
        "modified_at": iso_time(entry.modified),
    }


def _details(entry: ModelEntry) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": entry.format,
        "family": entry.family,
        "families": [entry.family],
        "parameter_size": entry.parameter_size,
        "quantization_level": entry.quantization,
    }


def _capabilities(entry: ModelEntry, template: str) -> list[str]:
    """Return what clients look at before they offer tools or ask for thoughts."""
    if entry.kind == "embed":
        return ["embedding"]
    thinks = "<think>" in template and "</think>" in template
    return ["completion", *(["tools"] if template else []), *(["thinking"] if thinks else [])]
