"""Search the hub for repositories that Vestal can serve."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlx_server.memory_forecast.weights import Arithmetic
from mlx_server.model_store.errors import DAMAGE
from mlx_server.model_store.files.loadable import fault
from mlx_server.model_store.files.model_kind import Kind, classify
from mlx_server.model_store.sources.hub_errors import explained

TIMEOUT_S = 15.0
_EXPANDED = ["config", "downloads", "gated", "pipeline_tag", "safetensors", "tags"]
_MLX_FILTER = ("mlx", "safetensors")
_ENCODER_TASKS: dict[str, Kind] = {
    "feature-extraction": "embed",
    "sentence-similarity": "embed",
    "text-ranking": "rerank",
}
"""The hub's tasks for embedders and rerankers. These are served in their authors' own format, because few are
converted for MLX.
"""
_GENERATING_TASKS = frozenset(
    {"", "text-generation", "image-text-to-text", "any-to-any", "text2text-generation"}
)
_OTHER_FORMATS = frozenset({"gguf", "gptq", "awq", "bitsandbytes", "compressed-tensors", "onnx-only"})
_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
}
_BITS = re.compile(r"(?<![0-9])([2-8])[-_]?bit", re.IGNORECASE)


@dataclass(frozen=True)
class SearchResult:
    """A repository that Vestal can serve. `parameters` maps each data type in its weight files, such as
    `BF16`, to how many numbers have that type; empty if the hub does not know.
    """

    repo: str
    kind: Kind
    downloads: int
    gated: bool
    license: str
    parameters: Mapping[str, int]

    @property
    def weights_bytes(self) -> int:
        """Return the size of the weight files in bytes; 0 if it is unknown."""
        return sum(count * _BYTES.get(dtype, 1) for dtype, count in self.parameters.items())

    def loaded_bytes(self, arithmetic: Arithmetic) -> int:
        """Return how many bytes the weights take in memory; 0 if it is unknown.

        If `arithmetic` says that weights become float32 (MLX's CPU build), each takes 4 bytes; else the
        weights take as many bytes as in the files. The hub does not tell how many weights are packed into one
        number. So the number of bits per weight is taken from the repository's name, such as `…-4bit`, and is
        4 if the name has none.
        """
        if not arithmetic.dense_float32:
            return self.weights_bytes
        match = _BITS.search(self.repo)
        packed = self.parameters.get("U32", 0) * 32 // (int(match[1]) if match else 4)
        floats = sum(count for dtype, count in self.parameters.items() if dtype in ("F16", "BF16", "F32"))
        return 4 * (packed + (0 if packed else floats))


def search(words: str, limit: int) -> list[SearchResult]:
    """Return up to `limit` repositories that match `words`: those for MLX, then embedders and rerankers in
    their authors' format.

    Within each group, the most downloaded come first. Raises ModelStoreError if the hub cannot be asked.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    def reach() -> None:
        """Raise an error of the hub's library or of its HTTP client if the hub cannot be reached or refuses a
        small request. This takes at most about TIMEOUT_S; `list_models` would repeat its request for half a
        minute.
        """
        url = f"{constants.ENDPOINT}/api/models"
        params, headers = {"limit": "1"}, build_hf_headers()
        hf_raise_for_status(get_session().get(url, params=params, headers=headers, timeout=TIMEOUT_S))

    def ask(tags: tuple[str, ...]) -> list[Any]:
        found = HfApi().list_models(
            search=words or None, filter=tags, sort="downloads", limit=4 * limit, expand=_EXPANDED
        )
        return list(found)

    with explained("", ""):
        reach()
        for_mlx, all_formats = ask(_MLX_FILTER), ask(("safetensors",))
    results = [*_served(for_mlx), *(each for each in _served(all_formats) if each.kind != "generate")]
    return list({each.repo: each for each in results}.values())[:limit]


def _served(found: Iterable[Any]) -> Iterator[SearchResult]:
    """Yield those of the hub's answers that Vestal can serve. A repository that is described in another way
    than expected, such as by a list in place of a name, is left out.
    """
    for info in found:
        result = None
        with contextlib.suppress(*DAMAGE):
            result = _result(info)
        if result is not None:
            yield result


def _result(info: Any) -> SearchResult | None:
    """Return one of the hub's answers as a SearchResult; None if Vestal cannot serve the repository."""
    tags, task = set(info.tags or ()), info.pipeline_tag or ""
    kind = _ENCODER_TASKS.get(task, "generate")
    if kind == "generate" and task not in _GENERATING_TASKS or tags & _OTHER_FORMATS:
        return None
    config = info.config or {}
    if kind != "generate" and config:
        known = classify(config, (), (), {"pipeline_tag": task})
        if known.reason:
            return None
    if kind == "generate" and "model_type" in config and fault(config, ()):
        return None
    return SearchResult(
        repo=info.id,
        kind=kind,
        downloads=info.downloads or 0,
        gated=bool(info.gated),
        license=next(
            (tag.removeprefix("license:") for tag in sorted(tags) if tag.startswith("license:")), ""
        ),
        parameters={dtype: int(n) for dtype, n in ((info.safetensors or {}).get("parameters") or {}).items()},
    )
