"""Find the source of a model by its name: in the configuration, or derived from the name itself.

A name of Ollama's library is looked up in `ollama_names.yaml`. A name with an owner, such as
`mlx-community/Qwen3-4B-4bit`, is a repository of the Hugging Face hub, and `@REVISION` after it is a branch,
a Git tag or a commit. The quantization can follow a colon. In a repository of GGUF files (`…-GGUF`),
`:Q4_K_M` or `:NAME.gguf` chooses the file. Otherwise, `:4bit` chooses the repository whose name ends with
`-4bit`.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import yaml

from vestal.config import Config, name_key
from vestal.config.model_names import DEFAULT_TAG, canonical
from vestal.config.settings import ModelSource

DEFAULT_GGUF = "Q4_K_M"
"""The quantization that is fetched from a repository of GGUF files if the name has none, as Ollama does."""
TABLE = Path(__file__).with_name("ollama_names.yaml")
_REPOSITORY = re.compile(r"(?P<repository>[\w][\w.-]*/[\w.-]+)(?P<revision>@[\w./-]+)?")
_BITS = re.compile(r"(?:i?q|mxfp|int)?(?P<bits>[2-8])(?:[_-].*|bits?|_k.*)?", re.IGNORECASE)
_FLOATS = {"f16": "fp16", "fp16": "fp16", "bf16": "bf16", "f32": "fp32", "fp32": "fp32"}


def source_of(config: Config, name: str) -> ModelSource | None:
    """Return the source of the files of the model `name`; None if no source is known."""
    if (configured := config.model_source(name)) is not None:
        return configured
    if (adapter := config.adapter(name)) is not None:
        return ModelSource(source=adapter.source)
    if (repository := library().get(name_key(name))) is not None:
        return ModelSource(source=f"hf:{repository}")
    path, _, tag = canonical(name).rpartition(":")
    match = _REPOSITORY.fullmatch(path)
    if match is None:
        return None
    repository, revision = match["repository"], match["revision"] or ""
    if repository.casefold().endswith("-gguf"):
        quantization = DEFAULT_GGUF if tag == DEFAULT_TAG else tag
        return ModelSource(source=f"hf:{repository}{revision}#{quantization}")
    return ModelSource(source=f"hf:{repository}{_suffix(repository, tag)}{revision}")


@functools.cache
def library() -> dict[str, str]:
    """Return the table of Ollama's library: the repository on the hub for each model name in lower case."""
    table = yaml.safe_load(TABLE.read_text("utf-8"))
    return {name_key(name): repository for name, repository in table.items()}


def _suffix(repository: str, tag: str) -> str:
    """Return the suffix that must be appended to `repository` to name the MLX repository for Ollama's `tag`,
    such as `-4bit` for `Q4_K_M`. Return "" if `tag` is the default tag, or `repository` already ends with the
    suffix. A tag that names no known quantization becomes the suffix itself, after a hyphen.

    On the hub, each quantization is a separate MLX repository: `org/model-4bit` for Ollama's
    `hf.co/org/model:Q4_K_M`.
    """
    if tag == DEFAULT_TAG:
        return ""
    if tag.casefold() in _FLOATS:
        suffix = f"-{_FLOATS[tag.casefold()]}"
    elif match := _BITS.fullmatch(tag):
        suffix = f"-{match['bits']}bit"
    else:
        suffix = f"-{tag}"
    return "" if repository.casefold().endswith(suffix.casefold()) else suffix
