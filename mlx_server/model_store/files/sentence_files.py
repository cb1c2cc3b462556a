"""Read the files that sentence-transformers adds to a model: modules, prompts, maximum lengths, README front
matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlx_server.model_store.errors import DAMAGE
from mlx_server.model_store.files.model_kind import default_pooling
from mlx_server.model_store.files.sentence_modules import Module
from mlx_server.model_store.files.weight_files import (
    UnreadableModel,
    read_header,
    read_json,
    read_json_object,
)
from vestal.platform.exhaustion import raise_if_exhausted
from vestal.platform.hidden_files import visible

DENSE_WEIGHTS = "model.safetensors"
"""The file with the weights of a projection, in the folder of its module."""

_PACKAGE = "sentence_transformers.models"
_MODULE_FOLDER = re.compile(r"(\d+)_(Pooling|Dense|Normalize|LogitScore)")
_SENTENCE_CONFIG = "config_sentence_transformers.json"
_LENGTHS = "sentence_bert_config.json"
_MAX_README_BYTES = 1024 * 1024
_NO_LIMIT_TOKENS = 10**9
"""From this number on, a tokenizer's maximum length means that it has no limit."""


@dataclass(frozen=True)
class SentenceConfig:
    """The content of config_sentence_transformers.json: the prompt put before each text, and how vectors are
    compared.
    """

    prompt: str = ""
    similarity: str = "cosine"


def read_modules(folder: Path, config: Mapping[str, Any]) -> tuple[Module, ...]:
    """Return the sentence-transformers modules of the model in `folder`: those that modules.json names.

    Without that file, they are a Transformer module and the modules in the folders with names such as
    `1_Dense`. If none of these is a Pooling module, one is added after the Transformer module. Its mode
    follows from the architecture in `config`, the content of config.json. The result is empty if there is
    neither modules.json, nor such a folder, nor config_sentence_transformers.json.

    Raises UnreadableModel if a file cannot be read or is invalid.
    """
    index = folder / "modules.json"
    if index.is_file():
        entries = read_json(index)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UnreadableModel(f"{index}: not a list of modules")
        named = [(str(entry.get("type", "")), str(entry.get("path", ""))) for entry in entries]
        return tuple(_module(folder, type_, path) for type_, path in named)
    steps = [_module(folder, f"{_PACKAGE}.{name}", path.name) for name, path in _numbered(folder)]
    if not steps and not (folder / _SENTENCE_CONFIG).is_file():
        return ()
    if not any(step.name == "Pooling" for step in steps):
        steps.insert(0, Module(f"{_PACKAGE}.Pooling", "", {"pooling_mode": default_pooling(config)}))
    return (Module(f"{_PACKAGE}.Transformer", "", {}), *steps)


def _numbered(folder: Path) -> list[tuple[str, Path]]:
    """Return the class name and the path of each module folder in `folder`, such as `Pooling` for
    `1_Pooling`, ordered by the number in the module folder's name.
    """
    found = [
        (int(match[1]), match[2], path)
        for path in folder.iterdir()
        if (match := _MODULE_FOLDER.fullmatch(path.name)) and path.is_dir()
    ]
    return [(name, path) for _, name, path in sorted(found)]


def module_files(folder: Path) -> list[Path]:
    """Return the files in the folders of the model's sentence-transformers modules, sorted, without hidden
    ones.
    """
    found = (path for _, module in _numbered(folder) for path in visible(module.iterdir()))
    return sorted(path for path in found if path.is_file())


def settings_files(folder: Path) -> list[Path]:
    """Return the JSON files that change a model's vectors, besides config.json and the tokenizer's files."""
    own = [folder / name for name in ("modules.json", _SENTENCE_CONFIG, _LENGTHS)]
    return [path for path in [*own, *module_files(folder)] if path.suffix == ".json" and path.is_file()]


def _module(folder: Path, type_: str, path: str) -> Module:
    """Return a sentence-transformers module. `type_` is the full name of its Python class, and `path` the
    folder of its files, relative to the model's `folder`. The field `config` of the result has the content of
    config.json in that folder, and `tensor_names` has the names of the tensors in the folder's
    model.safetensors.

    If one of these two files is missing, its field is empty. If `path` is empty or leads out of `folder`,
    both fields are empty. Raises UnreadableModel if a file cannot be read or is invalid.
    """
    if not path or ".." in Path(path).parts or Path(path).is_absolute():
        return Module(type_, path, {})
    config, weights = folder / path / "config.json", folder / path / DENSE_WEIGHTS
    names = frozenset(read_header(weights)[1]) if weights.is_file() else frozenset[str]()
    return Module(type_, path, read_json_object(config) if config.is_file() else {}, names)


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Return the prompt and the similarity function that config_sentence_transformers.json names. Without
    that file, the prompt is empty and the similarity is `cosine`. Raises UnreadableModel if the file cannot
    be read or is not a JSON object.

    The prompt is the one that `default_prompt_name` names, because a request has no field that chooses
    another.
    """
    path = folder / _SENTENCE_CONFIG
    if not path.is_file():
        return SentenceConfig()
    content = read_json_object(path)
    prompts, name = content.get("prompts"), content.get("default_prompt_name")
    prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
    similarity = content.get("similarity_fn_name")
    return SentenceConfig(
        prompt if isinstance(prompt, str) else "", similarity if isinstance(similarity, str) else "cosine"
    )


def context_tokens(folder: Path, config: dict[str, Any]) -> int | None:
    """Return the largest number of a text's tokens that an embedding model reads; None if its files do not
    say.

    The result is the smaller of two limits: the number of positions in `config`, and the maximum length in
    the sentence-transformers or tokenizer files. RoBERTa's first position is the padding token's id + 1, so
    the positions below it do not count. Raises UnreadableModel if a file is not a JSON object.
    """
    limits = [_positions(config)]
    sentence = folder / _LENGTHS
    own = read_json_object(sentence).get("max_seq_length") if sentence.is_file() else None
    if own is None and (tokenizer := folder / "tokenizer_config.json").is_file():
        own = read_json_object(tokenizer).get("model_max_length")
    limits.append(own)
    known = [int(n) for n in limits if isinstance(n, int | float) and 0 < n < _NO_LIMIT_TOKENS]
    return min(known, default=None)


def lower_cases(folder: Path) -> bool:
    """Return True if sentence_bert_config.json says that texts are converted to lower case before they are
    tokenized. Raises UnreadableModel if that file is not a JSON object.
    """
    path = folder / _LENGTHS
    return path.is_file() and read_json_object(path).get("do_lower_case") is True


def _positions(config: dict[str, Any]) -> Any:
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if config.get("model_type") in ("roberta", "xlm-roberta", "camembert") and isinstance(positions, int):
        padding = config.get("pad_token_id", 1)
        return positions - padding - 1 if isinstance(padding, int) else positions
    return positions


def front_matter(folder: Path) -> dict[str, Any]:
    """Return the YAML at the head of README.md; empty if there is none or it cannot be read."""
    path = folder / "README.md"
    try:
        if not path.is_file() or path.stat().st_size > _MAX_README_BYTES:
            return {}
        text = path.read_text("utf-8", "replace")
        if not text.startswith("---"):
            return {}
        content = yaml.safe_load(text.split("---", 2)[1])
    except (yaml.YAMLError, *DAMAGE) as error:
        raise_if_exhausted(error)
        return {}
    return content if isinstance(content, dict) else {}
