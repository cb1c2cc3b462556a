"""Describe models in Ollama's form: the installed ones, the loaded ones, and one in detail."""

from __future__ import annotations

import json
from typing import Any

from mlx_server import protocol
from mlx_server.gateway.json_text import iso_time
from mlx_server.model_store import ModelEntry, Preset
from mlx_server.model_store.files.model_folder import chat_template
from mlx_server.model_store.files.weight_files import read_header, read_headers

NO_EXPIRY_S = 100 * 365 * 86_400.0
"""The time to expiry that is reported for a model that stays loaded, because Ollama's API has no value for
"never"."""


def tag(entry: ModelEntry, fit: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an installed model in the form of /api/tags. `fit` says whether the model fits into memory; None
    if that is unknown.
    """
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": iso_time(entry.modified),
        "size": entry.bytes,
        "digest": entry.digest,
        "details": _details(entry),
        "capabilities": list(entry.capabilities),
        **({"vestal": fit} if fit else {}),
    }


def running(report: protocol.LoadedModelReport, entry: ModelEntry | None, wall_s: float) -> dict[str, Any]:
    """Return a loaded model in the form of /api/ps. `wall_s` is the current time in seconds since 1970, from
    which the time is computed at which the model will be unloaded. `entry` is None if the model's files were
    removed after it was loaded; the digest and the details are then empty.
    """
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


def expires_last(report: protocol.LoadedModelReport) -> float:
    """Return a sort key that orders loaded models as /api/ps does: the model that stays loaded longest comes
    first.
    """
    return -(NO_EXPIRY_S if report.expires_in_s is None else report.expires_in_s)


def shown(entry: ModelEntry, asked_as: str, *, with_tensors: bool) -> dict[str, Any]:
    """Return an installed model in the form of /api/show. `asked_as` is the model's name as the client
    spelled it.
    """
    preset = entry.preset
    template = preset.shown_template or (chat_template(entry.path) if entry.kind == "generate" else "")
    licenses = [*([entry.license] if entry.license else []), *preset.licenses]
    body: dict[str, Any] = {
        "modelfile": _modelfile(entry, template, licenses),
        "parameters": "\n".join(_parameter(name, value) for name, value in _parameters(preset)),
        "template": template,
        "license": "\n".join(licenses),
        "details": _details(entry),
        "model_info": _model_info(entry, asked_as),
        "capabilities": list(entry.capabilities),
        "modified_at": iso_time(entry.modified),
    }
    if preset.system:
        body["system"] = preset.system
    if preset.messages:
        body["messages"] = [
            {"role": each["role"], "content": each.get("content") or ""} for each in preset.messages
        ]
    if with_tensors:
        headers = read_headers(entry.path)
        if entry.adapter is not None:
            headers |= read_header(entry.adapter.weights_file)[1]
        body["tensors"] = [
            {"name": name, "type": header["dtype"], "shape": header["shape"]}
            for name, header in sorted(headers.items())
        ]
    return body


def _model_info(entry: ModelEntry, asked_as: str) -> dict[str, Any]:
    """Return the model's metadata (name, number of parameters, context length, sizes of its architecture,
    adapter), under the names that GGUF files use. The name is `asked_as`, the model's name as the client
    spelled it.
    """
    figures = {"context_length": entry.context_tokens, **entry.architecture}
    return {
        "general.architecture": entry.family,
        "general.basename": asked_as,  # Copilot Chat shows it as the model's name
        "general.parameter_count": entry.parameters,
        "general.file_bytes": entry.bytes,
        **{f"{entry.family}.{name}": value for name, value in figures.items()},
        **_adapter_info(entry),
    }


def _adapter_info(entry: ModelEntry) -> dict[str, Any]:
    """Return the type, the rank and the alpha of the model's adapter, under GGUF's names; an empty dict if
    the model has no adapter. Alpha is the adapter's scale times its rank.
    """
    if entry.adapter is None:
        return {}
    own = entry.adapter.settings
    return {
        "adapter.type": own.method,
        "adapter.lora.rank": own.rank,
        "adapter.lora.alpha": own.scale * own.rank,
    }


def _details(entry: ModelEntry) -> dict[str, Any]:
    details = {
        "parent_model": entry.preset.parent,
        "format": entry.format,
        "family": entry.family,
        "families": [entry.family],
        "parameter_size": entry.parameter_size,
        "quantization_level": entry.quantization,
        "context_length": entry.context_tokens,
    }
    width = entry.architecture.get("embedding_length")
    return details | ({"embedding_length": width} if width else {})


def _parameters(preset: Preset) -> list[tuple[str, Any]]:
    """Return (name, value) of each parameter. A parameter with several values yields one pair for each
    value.
    """
    return [
        (name, each)
        for name, value in preset.parameters.items()
        for each in (value if isinstance(value, list) else [value])
    ]


def _parameter(name: str, value: Any) -> str:
    """Return a parameter as a line of /api/show: the name and the value in two columns, with texts in
    quotes.
    """
    return f"{name:<30} {json.dumps(value, ensure_ascii=False)}"


def _modelfile(entry: ModelEntry, template: str, licenses: list[str]) -> str:
    """Return a Modelfile from which `ollama create` can make the model again."""
    parts = [("TEMPLATE", template), ("SYSTEM", entry.preset.system)]
    parts += [(f"PARAMETER {name}", _bare(value)) for name, value in _parameters(entry.preset)]
    parts += [("LICENSE", text) for text in licenses]
    parts += [(f"MESSAGE {each['role']}", each.get("content") or "") for each in entry.preset.messages]
    lines = [f"{instruction} {_quoted(text)}" for instruction, text in parts if text]
    source = entry.preset.parent or entry.name
    heading = ['# Modelfile generated by "ollama show"']
    if entry.adapter is not None and entry.loaded_as == entry.name:
        # Ollama's command sends no file named adapters.safetensors, so FROM names the model with the adapter.
        heading.append(f"# {entry.name} is {entry.made_from}, in {entry.adapter.path}")
        source = entry.name
    return "\n".join([*heading, f"FROM {source}", *lines, ""])


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    """Return `text` as an argument of a Modelfile instruction. The text is put in quotes if it has line
    breaks, begins with a quote, or has spaces at either end.
    """
    if "\n" not in text and text == text.strip(" ") and not text.startswith('"'):
        return text
    return f'"""{text}"""' if '"' in text else f'"{text}"'
