"""Load a model of any kind in steps, so that the MLX thread can serve the models in memory between
two steps.
"""

from __future__ import annotations

from collections.abc import Generator

from mlx_server.engine.embeddings.encoder import Encoder, load_encoder
from mlx_server.engine.errors import LoadError
from mlx_server.engine.models.language_loading import load_language_model, weights_in_memory
from mlx_server.engine.models.language_model import LanguageModel, SharedWeights, arrays_of
from mlx_server.engine.models.weights import checks, reading
from mlx_server.engine.models.weights.checks import UsedFile
from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.engine.models.weights.verification import Verification
from mlx_server.engine.reranking.reranker import Reranker
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files import model_folder, weight_files

Weights = LanguageModel | Encoder | Reranker
"""A model in memory."""

Loader = Generator[float, None, Weights]
"""Yields the fraction done (0 to 1) after each step, and returns the model."""


def load(entry: ModelEntry, verification: Verification | None = None) -> Loader:
    """Load a model in steps. Yield the fraction done (0 to 1) after each step, and return the model.

    If another model in memory holds the same weights when this function is called, the two share them, even
    if that model is unloaded before the load ends. The files of weights are passed to `verification`, which
    compares them with their digests after the model's first answer; if `verification` is None, this
    comparison is left out. Raises LoadError if the model cannot be loaded.
    """
    return _load(entry, weights_in_memory(entry), verification or Verification())


def _load(entry: ModelEntry, shared: SharedWeights | None, verification: Verification) -> Loader:
    try:
        weight_files.verify(entry.path)
        model_folder.check_templates(entry.path)
        used = yield from _check_files(entry, verification.digests)
        weights = yield from _load_kind(entry, shared)
        checks.check_unchanged(used)
        verification.loaded(entry.name, used)
        return weights
    except weight_files.UnreadableModel as error:
        raise LoadError(entry.name, str(error)) from error
    except Exception as error:  # mlx-lm may raise any exception for a damaged folder
        reason = str(error).strip().splitlines() or [""]
        raise LoadError(entry.name, f"{reason[0][:300]} ({type(error).__name__})") from error


def _check_files(entry: ModelEntry, digests: DigestFile) -> Generator[float, None, list[UsedFile]]:
    """Check the files of the model's weights and of its adapter's weights before they are used, and return
    them. Files that have changed since they were installed or last read are read completely. `digests` stores
    the digests of earlier reads.

    Yield 0.0 after each chunk: nothing has been loaded so far. Raises UnreadableModel if the content of a
    file is not the recorded one.
    """
    folders = [entry.path, *([entry.adapter.path] if entry.adapter is not None else ())]
    used: list[UsedFile] = []
    for folder in folders:
        checking = checks.check_before_use(folder, digests)
        try:
            while True:
                next(checking)
                yield 0.0
        except StopIteration as end:
            used += end.value
    return used


def _load_kind(entry: ModelEntry, shared: SharedWeights | None) -> Loader:
    """Load the model `entry` in steps with the loader for its kind: text generation, embedding or reranking.
    Yield the fraction done (0 to 1) after each step, and return the model. `shared` are the weights of a text
    model if another model in memory already holds them; else None.
    """
    if entry.kind == "embed":
        return (yield from _load_encoder(entry))
    if entry.kind == "rerank":
        return (yield from _load_reranker(entry))
    return (yield from load_language_model(entry, shared))


def _load_encoder(entry: ModelEntry) -> Generator[float, None, Encoder]:
    yield 0.1
    encoder = load_encoder(entry.path, entry.context_tokens)
    for done in reading.read(arrays_of(encoder.model)):
        yield 0.2 + 0.8 * done
    return encoder


def _load_reranker(entry: ModelEntry) -> Generator[float, None, Reranker]:
    from mlx_server.engine.reranking.loading import load_reranker

    yield 0.1
    reranker = load_reranker(entry.path, entry.context_tokens)
    for done in reading.read(arrays_of(reranker.model)):
        yield 0.2 + 0.8 * done
    return reranker


def weights_bytes(weights: Weights) -> int:
    """Return how many bytes the weights take in memory, including shared weights, the vision part and the
    draft model.
    """
    draft = getattr(weights, "draft", None)
    of_draft = 0 if draft is None else sum(array.nbytes for array in arrays_of(draft))
    return sum(array.nbytes for array in arrays_of(weights.model)) + _vision_bytes(weights) + of_draft


def _vision_bytes(weights: Weights) -> int:
    vision = getattr(weights, "vision", None)
    return 0 if vision is None else sum(array.nbytes for array in vision.arrays())


def shared_bytes(weights: Weights) -> int:
    """Return how many bytes of `weights` other models may use, too. However many models share these bytes,
    they are in memory only once.
    """
    shared = getattr(weights, "shared", None)
    if shared is None:
        return 0
    return sum(array.nbytes for array in arrays_of(shared.model)) + _vision_bytes(weights)
