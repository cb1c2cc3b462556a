"""Read the facts about a model from its folder, without mlx: configuration, headers of the weights, chat
template.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_server.model_store.errors import DAMAGE
from mlx_server.model_store.files import sentence_files, weight_files
from mlx_server.model_store.files.capabilities import WITHOUT_CHAT, capabilities_of, has_infill_markers
from mlx_server.model_store.files.context_limit import context_tokens
from mlx_server.model_store.files.file_states import (
    FileState,
    files_in,
    states_of,
    templates_below,
    weights_id,
)
from mlx_server.model_store.files.image_support import PROCESSOR_FILES, image_support
from mlx_server.model_store.files.model_kind import Kind, ModelKind, classify
from mlx_server.model_store.files.sentence_modules import Module
from mlx_server.model_store.files.weight_figures import most_common_dtype, parameters, quantization_of
from mlx_server.model_store.files.weight_files import (
    UnreadableModel,
    damage_explained,
    is_weight_file,
    stored_bytes,
)
from mlx_server.model_store.layout import MANIFEST
from vestal.platform.exhaustion import raise_if_exhausted
from vestal.platform.hidden_files import visible

MAX_TEMPLATE_BYTES = 1024 * 1024
"""Largest file of a chat template that is read. The longest ones in use have 50 KB."""
PROCESSOR_TEMPLATE = "chat_template.json"
"""The file in which Transformers 4.43 to 4.52 stored the chat template of a model that reads images. LLaVA
and Mistral Small 3.1 have their template only there.
"""
MAX_LICENSE_BYTES = 256 * 1024
"""Largest file of a license that is shown."""
_MAX_CONFIG_BYTES = 64 * 1024 * 1024
"""Largest `tokenizer_config.json` that is read: it may hold templates, and lists up to 100,000 tokens."""


@dataclass(frozen=True)
class ModelFacts:
    """What a model's files say about it.

    `bytes` is the size of all files, `weights_bytes` that of the tensors, `parameters` the number of weights.
    `quantization` is `Q4`, `Q8` and so on, or the type of most weights, such as `BF16`. `modified` is when
    the files were last changed, in seconds since the epoch. `digest` (sha256, hex) covers configuration,
    tokenizer, and the headers and sizes of the weight files.

    `weights_files` is an id of the weight files. Two folders have the same id if, and only if, their weight
    files are hard links to the same files. The id changes when a weight file is changed. `texts_digest`
    (sha256, hex) covers the small files that decide how the weights are used: configuration, tokenizer and
    templates. `license` is the text of the license that comes with the model, or empty. `no_images_reason`
    says why a model that was made for images is served for text only; else it is empty.
    """

    kind: Kind
    family: str
    bytes: int
    weights_bytes: int
    parameters: int
    quantization: str
    context_tokens: int
    digest: str
    modified: float
    config: dict[str, Any]
    capabilities: tuple[str, ...]
    weights_files: str
    texts_digest: str
    license: str
    no_images_reason: str = ""


def looks_like_model(folder: Path) -> bool:
    """Return True if the folder has a config.json and weight files, as every model has. A folder that cannot
    be read, such as another user's or `lost+found`, does not look like a model.
    """
    try:
        return has_model_files(folder)
    except UnreadableModel:
        return False


def has_model_files(folder: Path) -> bool:
    """Return True if the folder has a config.json and weight files, False if they or the folder are missing.
    Raises UnreadableModel if the folder cannot be read, so that nobody knows.
    """
    try:
        if not stat.S_ISREG((folder / "config.json").stat().st_mode):
            return False  # before the folder is listed, which may be large and no model
        return any(map(is_weight_file, os.listdir(folder)))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # ValueError: the folder's name has a null byte
        raise_if_exhausted(error)
        reason = getattr(error, "strerror", None) or error
        raise UnreadableModel(f"{folder}: it cannot be read ({reason})") from error


def find_model(tree: Path) -> Path | None:
    """Return the model in the unpacked folder tree `tree`: the topmost folder that looks like a model, or the
    topmost GGUF file; None if there is neither.
    """
    folders = (path.parent for path in tree.rglob("config.json") if looks_like_model(path.parent))
    found = [*folders, *visible(tree.rglob("*.gguf"))]
    return min(found, key=lambda path: (len(path.parts), str(path)), default=None)


def read_facts(folder: Path) -> ModelFacts:
    """Return the facts of the model in `folder`. Raises UnreadableModel if a file is missing, damaged or not
    supported.
    """
    with damage_explained(folder):
        return _read_facts(folder, states_of(folder))


def check_templates(folder: Path) -> None:
    """Raise UnreadableModel, which names the file, if a file with a chat template is too large to be read:
    over MAX_TEMPLATE_BYTES, or, for tokenizer_config.json, over _MAX_CONFIG_BYTES. Missing files are ignored.
    """
    own = [folder / "chat_template.jinja", folder / PROCESSOR_TEMPLATE]
    own += folder.glob("additional_chat_templates/*.jinja")
    limits = {**dict.fromkeys(own, MAX_TEMPLATE_BYTES), folder / "tokenizer_config.json": _MAX_CONFIG_BYTES}
    for path, limit in limits.items():
        if path.is_file() and (size := path.stat().st_size) > limit:
            name = path.relative_to(folder)
            raise UnreadableModel(f"{name} has {size} bytes; a chat template's file may have {limit}")


def chat_template(folder: Path) -> str:
    """Return the text of the model's chat template; empty if the model has no template that can be read. The
    template is in a file of its own, in the tokenizer's configuration, or in the processor's file.
    """
    try:
        check_templates(folder)
        separate = folder / "chat_template.jinja"
        if separate.is_file():
            return separate.read_text("utf-8")
    except (UnreadableModel, *DAMAGE) as error:
        raise_if_exhausted(error)
        return ""
    return _template_in(folder / "tokenizer_config.json") or _template_in(folder / PROCESSOR_TEMPLATE)


def processor_template(folder: Path) -> str:
    """Return the text of the chat template in the processor's file, which tokenizers do not read, and which
    counts only if the tokenizer has no template; empty if there is none that can be read.
    """
    return _template_in(folder / PROCESSOR_TEMPLATE)


def _template_in(path: Path) -> str:
    """Return the chat template in the JSON file `path`; empty if there is none that can be read. If the file
    holds several templates, the one named "default" is returned.
    """
    try:
        template = json.loads(path.read_text("utf-8")).get("chat_template")
        if isinstance(template, list):
            by_name = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
            template = by_name.get("default")
    except DAMAGE as error:
        raise_if_exhausted(error)
        return ""
    return template if isinstance(template, str) else ""


@functools.lru_cache(maxsize=256)
def _read_facts(folder: Path, states: tuple[FileState, ...]) -> ModelFacts:
    """Return the facts of the model in `folder`. The result is cached by the states of the model's files."""
    config = weight_files.read_config(folder)
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    headers: dict[str, Any] = {}
    by_file: dict[str, dict[str, Any]] = {}
    for path in weight_files.weight_files(folder):
        raw, by_file[path.name] = weight_files.read_header(path)
        digest.update(path.name.encode() + struct.pack("<Q", path.stat().st_size) + raw)
        headers.update(by_file[path.name])
    if not headers:
        raise UnreadableModel(f"{folder}: no weights in model*.safetensors")
    weight_files.check_index(folder, by_file)
    tokens = tokenizer.read_bytes() if (tokenizer := folder / "tokenizer.json").is_file() else b""
    digest.update(tokens)
    kind = read_kind(folder, config, headers).kind
    if kind != "generate":  # pooling, projections and prompt change the vectors
        for path in sentence_files.settings_files(folder):
            digest.update(path.read_bytes())
    images = image_support(config, headers, {path.name for path in files_in(folder)})
    if images.reads_images:  # these files change how an image is resized and normalized
        for path in (folder / name for name in PROCESSOR_FILES):
            digest.update(path.read_bytes() if path.is_file() else b"")
    bits, group_size = quantization_of(config)
    return ModelFacts(
        kind=kind,
        family=str(config.get("model_type", "unknown")),
        bytes=sum(size for *_, size in states),
        weights_bytes=sum(stored_bytes(entry) for entry in headers.values()),
        parameters=sum(parameters(name, entry, headers, group_size) for name, entry in headers.items()),
        quantization=f"Q{bits}" if bits else most_common_dtype(headers),
        context_tokens=context_tokens(folder, config, kind),
        digest=digest.hexdigest(),
        modified=max(mtime for _, _, mtime, _ in states) / 1e9,
        config=config,
        capabilities=WITHOUT_CHAT.get(kind)
        or capabilities_of(
            chat_template(folder), fills_gaps=has_infill_markers(tokens), reads_images=images.reads_images
        ),
        weights_files=weights_id(folder),
        texts_digest=_texts_digest(folder),
        license=_license(folder),
        no_images_reason=images.reason,
    )


def _texts_digest(folder: Path) -> str:
    """Return the sha256 (hex) of all files with a suffix in TEXTS and their names, except the manifest."""
    digest = hashlib.sha256()
    for path in (*files_in(folder), *templates_below(folder)):
        if path.suffix in TEXTS and path.name != MANIFEST:
            digest.update(
                f"{path.relative_to(folder)}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
            )
    return digest.hexdigest()


TEXTS = frozenset({".json", ".jinja", ".txt", ".model"})
"""The suffixes of the small files that decide how a model's weights are used."""


def read_kind(folder: Path, config: dict[str, Any], tensor_names: Collection[str]) -> ModelKind:
    """Return what the model in `folder` is for. Raises UnreadableModel if a file cannot be read or this model
    is not supported.
    """
    modules = sentence_files.read_modules(folder, config)
    kind = classify(config, modules, tensor_names, sentence_files.front_matter(folder))
    reason = kind.reason
    if kind.kind != "generate" and not reason and not (folder / "tokenizer.json").is_file():
        reason = "it has no tokenizer.json"
    if not reason and kind.kind == "rerank":
        reason = _unknown_prompt(folder, modules)
    if reason:
        raise UnreadableModel(f"{folder}: {reason}")
    return kind


def _unknown_prompt(folder: Path, modules: Sequence[Module]) -> str | None:
    """Return, as part of a sentence, why the prompt of the reranker in `folder` is not supported; None if it
    is supported, or if the reranker needs none.

    All rerankers that are language models get the prompt of Qwen3-Reranker. If `modules`, the reranker's
    sentence-transformers modules, include LogitScore, the reranker's own prompt is its chat template, which
    must be that of Qwen3-Reranker. Without LogitScore, no template is compared.
    """
    if not any(module.name == "LogitScore" for module in modules) or "<Instruct>" in chat_template(folder):
        return None
    return "its chat template is not that of Qwen3-Reranker, the only one that is known for ranking"


def _license(folder: Path) -> str:
    """Return the text of the license file in `folder`; empty if there is none that can be read."""
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        path = folder / name
        try:
            if path.is_file() and path.stat().st_size <= MAX_LICENSE_BYTES:
                return path.read_text("utf-8", "replace")
        except OSError as error:
            raise_if_exhausted(error)
    return ""
