"""Define presets: what a model adds to weights that it shares with others (system prompt, messages,
parameters). Pure.

`ollama create` and `/save` make such models from others. The store keeps a preset in the model's manifest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MANIFEST_KEY = "preset"
"""Key in the manifest. A model without it is served with its files' own settings."""


@dataclass(frozen=True)
class Preset:
    """What a model adds to its files. For an empty field, the files decide.

    `system` is the system prompt, `template` a chat template in Jinja. If the template was translated from
    Go's template language, `template_source` is the original. `parameters` has the names and values of
    Ollama's options, `messages` are put before those of a client, and `licenses` are the texts of licenses.
    `parent` is the name of the model that this one was made from.
    """

    parent: str = ""
    system: str = ""
    template: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    messages: tuple[dict[str, Any], ...] = field(default=(), hash=False)
    licenses: tuple[str, ...] = ()
    template_source: str = ""

    @property
    def shown_template(self) -> str:
        """Return the chat template as the preset's author wrote it: the original in Go's template language if
        `template` is a translation of it, else `template` itself. The text is empty if there is none.
        """
        return self.template_source or self.template

    @property
    def changes_nothing(self) -> bool:
        """Return True if a model with this preset answers exactly as it would without the preset."""
        return not (self.system or self.template or self.parameters or self.messages)

    def digest(self, of_files: str) -> str:
        """Return the sha256 (hex) that identifies the model with this preset. `of_files` is the digest of the
        model's files. It is returned unchanged if all fields except `parent` are empty.
        """
        if self.changes_nothing and not self.licenses:
            return of_files
        text = json.dumps([of_files, self.as_manifest()], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def with_additions(self, added: Preset) -> Preset:
        """Return the preset of a model made from this one: values in `added` replace this preset's, and
        licenses accumulate.
        """
        return Preset(
            parent=added.parent or self.parent,
            system=added.system or self.system,
            template=added.template or self.template,
            template_source=added.template_source if added.template else self.template_source,
            parameters={**self.parameters, **added.parameters},
            messages=added.messages or self.messages,
            licenses=(*self.licenses, *added.licenses),
        )

    def as_manifest(self) -> dict[str, Any]:
        """Return the preset as a JSON object, without empty fields."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}


def from_manifest(manifest: Mapping[str, Any]) -> Preset | None:
    """Return the preset in a manifest; None if there is none. A field with a wrong type counts as empty."""
    stored = manifest.get(MANIFEST_KEY)
    if not isinstance(stored, dict):
        return None
    parameters = stored.get("parameters")
    return Preset(
        parent=_text(stored.get("parent")),
        system=_text(stored.get("system")),
        template=_text(stored.get("template")),
        template_source=_text(stored.get("template_source")),
        parameters=parameters if isinstance(parameters, dict) else {},
        messages=tuple(filter(_is_message, _list(stored.get("messages")))),
        licenses=tuple(each for each in _list(stored.get("licenses")) if isinstance(each, str)),
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)
