"""`vestal models info`: describe a model, installed or on the hub, and the memory that the model needs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from host_agent.cli.table import Cell, Column, print_table
from mlx_server.memory_forecast.fit import context_text, contexts_of, fit, longest_context, sentence
from mlx_server.memory_forecast.forecast import Forecast
from mlx_server.model_store import ModelEntry, ModelStoreError, catalog, find, survey
from mlx_server.model_store.files.model_folder import chat_template
from mlx_server.model_store.files.sentence_files import front_matter
from mlx_server.model_store.forecasts import forecast_of_installed, machine_limit_bytes
from mlx_server.model_store.layout import installed_path, read_manifest
from mlx_server.model_store.plans import hub_source, read_hub_model
from mlx_server.model_store.sources.by_name import source_of
from vestal.config import Config, canonical, find_named
from vestal.config.units import format_size


def run(options: argparse.Namespace, config: Config) -> int:
    """Print what is known about the model `options.name`, as a table or, with `options.json`, as JSON, and
    return 0.

    Raises ModelStoreError if the installed model is broken, or if the model is not installed and no
    information about it can be read from the Hugging Face hub.
    """
    entry = find(config, options.name)
    broken = None if entry else find_named(options.name, survey(config)[1], lambda each: each.name)
    if broken:
        raise ModelStoreError(
            "not_a_model",
            f"Model {broken.name} is broken: {broken.reason.rstrip('.')}.",
            f"Replace its files, or `vestal models rm {broken.name}`.",
        )
    body = _of_hub(config, options.name) if entry is None else _of_installed(config, entry)
    if options.json:
        print(json.dumps(body, ensure_ascii=False))
    else:
        print_table((Column(), Column(wraps=True)), _rows(body))
    return 0


def _of_installed(config: Config, entry: ModelEntry) -> dict[str, Any]:
    manifest = read_manifest(installed_path(config.models_dir, entry.name))
    configured = config.model_source(entry.name) or config.adapter(entry.name)
    source = manifest.get("source") or (configured.source if configured else "")
    files = [
        {"name": str(path.relative_to(entry.path)), "bytes": path.stat().st_size}
        for path in sorted(entry.path.rglob("*"))
        if path.is_file()
    ]
    adapters = [each.name for each in catalog(config) if each.adapter and each.preset.parent == entry.name]
    template = entry.preset.template or chat_template(entry.path)
    more = {
        "installed": True,
        "source": source,
        "digest": entry.digest,
        "path": str(entry.path),
        "parent": entry.preset.parent,
        "adapters": adapters,
        "has_template": bool(template),
    }
    if entry.adapter is not None:
        more["adapter"] = entry.adapter.as_json()
    return _body(config, entry, forecast_of_installed(config, entry), files, _license(entry)) | more


def _license(entry: ModelEntry) -> str:
    """Return the license that the model's README names, or else the first line of the model's license file;
    an empty text if there is neither.
    """
    named = front_matter(entry.path).get("license")
    if isinstance(named, str):
        return named
    return next((line.strip() for line in entry.license.splitlines() if line.strip()), "")


def _of_hub(config: Config, name: str) -> dict[str, Any]:
    source = hub_source(config, name)
    if source is None:
        raise _unknown(config, name)
    found = read_hub_model(config, name, source)
    files = [{"name": file.name, "bytes": file.bytes} for file in found.repository.files]
    more = {
        "installed": False,
        "source": f"hf:{found.repository.repo}",
        "commit": found.repository.commit,
        "downloads": found.repository.downloads,
        "gated": found.repository.gated,
        "has_template": found.has_template,
    }
    body = _body(config, found.entry, found.forecast, files, found.repository.license) | more
    return body | {"bytes": found.repository.bytes}


def _unknown(config: Config, name: str) -> ModelStoreError:
    """Return the error for a model that is neither installed nor found on the hub."""
    settings = source_of(config, name)
    if settings is None:
        why, remedy = "no source is known for it", "Find one with `vestal models search`."
    else:
        why = f"its source, {settings.source}, says nothing about it before it is fetched"
        remedy = f"`vestal models pull {name}` fetches it."
    return ModelStoreError("model_not_found", f"Model {name} is not installed, and {why}.", remedy)


def _body(
    config: Config, entry: ModelEntry, forecast: Forecast, files: list[dict[str, Any]], license_word: str
) -> dict[str, Any]:
    limit_bytes = machine_limit_bytes(config)
    return {
        "name": canonical(entry.name),
        "kind": entry.kind,
        "family": entry.family,
        "parameters": entry.parameters,
        "parameter_size": entry.parameter_size,
        "quantization": entry.quantization,
        "context_tokens": entry.context_tokens,
        "capabilities": list(entry.capabilities),
        "no_images_reason": entry.no_images_reason,
        "license": license_word,
        "bytes": entry.bytes,
        "files": files,
        "memory": {
            **fit(forecast, limit_bytes).as_json(),
            "sentence": sentence(forecast, limit_bytes),
            "longest_context_tokens": longest_context(forecast, limit_bytes),
            "contexts": [fit(forecast, limit_bytes, tokens).as_json() for tokens in contexts_of(forecast)],
        },
    }


def _rows(body: dict[str, Any]) -> list[tuple[Cell, Cell]]:
    memory = body["memory"]
    rows: list[tuple[Cell, Cell]] = [
        ("name", body["name"]),
        ("kind", f"{body['kind']} ({', '.join(body['capabilities']) or 'no capabilities'})"),
        *([("images", f"not served: {body['no_images_reason']}")] if body["no_images_reason"] else []),
        ("family", body["family"]),
        ("parameters", f"{body['parameter_size']} in {body['quantization']}"),
        ("context", f"{body['context_tokens']:,} tokens"),
        ("template", "yes" if body["has_template"] else "none"),
        ("license", body["license"] or "not stated"),
        ("source", body["source"] or "a folder"),
        ("size", f"{format_size(body['bytes'])} in {len(body['files'])} files"),
        *(
            (label, str(body[key]))
            for label, key in (("commit", "commit"), ("digest", "digest"))
            if key in body
        ),
    ]
    if body["installed"]:
        rows.append(("path", body["path"]))
        rows += [("made from", body["parent"])] if body["parent"] else []
        if own := body.get("adapter"):
            rows.append(("adapter", f"{own['method']} of rank {own['rank']}, {own['path']}"))
        rows += [("adapters", ", ".join(body["adapters"]))] if body["adapters"] else []
    else:
        access = "gated: accept the authors' terms first" if body["gated"] else "open"
        rows.append(("hub", f"{body['downloads']:,} downloads, {access}; not installed"))
    rows.append(("memory", memory["sentence"]))
    rows += [_context_row(each) for each in memory["contexts"]]
    return rows


def _context_row(found: dict[str, Any]) -> tuple[Cell, Cell]:
    needed = format_size(found["needed_bytes"])
    text = f"{needed} with {context_text(found['context_tokens'])} context"
    return "", text if found["fits"] else (f"{text}: more than {format_size(found['limit_bytes'])}", "red")
