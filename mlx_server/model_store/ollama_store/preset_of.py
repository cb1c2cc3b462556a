"""Read the preset of a model in Ollama's store: template, system prompt, parameters, messages and
licenses.
"""

from __future__ import annotations

import json
from typing import Any

from mlx_server.model_store.ollama_store.go_syntax import UntranslatableTemplate
from mlx_server.model_store.ollama_store.go_to_jinja import to_jinja
from mlx_server.model_store.ollama_store.manifests import MAX_TEXT_BYTES, OllamaModel, read_file
from mlx_server.model_store.preset import Preset

PLAIN = "{{ .Prompt }}"
"""The template that Ollama gives a model without one: the prompt is sent as it is."""


def preset_of(model: OllamaModel, *, own_template: str) -> tuple[Preset, list[str]]:
    """Return the preset of a model in Ollama's store (chat template, system prompt, parameters, messages and
    licenses), and sentences about what could not be converted: its template, or a renderer of prompts that is
    built into Ollama.

    `own_template` is the chat template in the file of the weights, or empty. If it is not empty, it is used
    instead of an Ollama template that only passes the prompt on or cannot be translated. The preset then has
    no template.

    Raises OSError if a file cannot be read, and ValueError if one is too large or not JSON.
    """
    notes: list[str] = []
    template = _text(model, "template")
    if template.strip() == PLAIN and own_template:
        template = ""
    translated = template
    if template:
        try:
            translated = to_jinja(template)
        except UntranslatableTemplate as error:
            instead = "the template in its weights' file is used" if own_template else "it cannot chat"
            notes.append(f"Its template was not translated ({error}): {instead}.")
            template = translated = ""
    elif not own_template and (renderer := model.about.get("renderer")):
        notes.append(f"Ollama's own program {str(renderer)[:40]!r} renders its prompts: it cannot chat here.")
    return (
        Preset(
            system=_text(model, "system"),
            template=translated,
            template_source=template if translated != template else "",
            parameters=_parameters(_json(model, "params")),
            messages=tuple(_messages(_json(model, "messages"))),
            licenses=tuple(_texts(model, "license")),
        ),
        notes,
    )


def _texts(model: OllamaModel, kind: str) -> list[str]:
    layers = [layer for layer in model.layers if layer.kind == kind]
    texts = (read_file(layer.path, MAX_TEXT_BYTES).decode("utf-8", "replace") for layer in layers)
    return [text for text in texts if text]


def _text(model: OllamaModel, kind: str) -> str:
    return next(iter(_texts(model, kind)), "")


def _json(model: OllamaModel, kind: str) -> Any:
    text = _text(model, kind)
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its layer {kind} is not JSON") from error


def _parameters(params: Any) -> dict[str, Any]:
    """Return the parameters whose values have a type that Ollama's options can have: number, text, or list of
    texts.
    """
    found = params if isinstance(params, dict) else {}
    return {name: value for name, value in found.items() if _is_option(value)}


def _is_option(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    return isinstance(value, bool | int | float | str)


def _messages(messages: Any) -> list[dict[str, Any]]:
    entries = messages if isinstance(messages, list) else []
    return [
        {"role": each["role"], "content": each["content"]}
        for each in entries
        if isinstance(each, dict)
        and isinstance(each.get("role"), str)
        and isinstance(each.get("content"), str)
    ]
