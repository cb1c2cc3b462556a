"""Loads a model bit by bit, so that the MLX thread can serve others between the bits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model, load_model

from mlx_server.engine.embeddings.encoder import Encoder, load_encoder
from mlx_server.engine.errors import LoadError
from mlx_server.engine.generation.output_parser import Marks
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.memory.weights import SLICE_BYTES
from mlx_server.engine.models.tokenizers import tokenizer_of
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files import integrity, weight_files
from mlx_server.model_store.files.fingerprint import fingerprint

T = TypeVar("T")
_ASIDE_WAIT_S = 0.002


@dataclass(frozen=True)
class LanguageModel:
    """A model that generates, and its tokenizer (mlx-lm's wrapper)."""

    model: Any
    tokenizer: Any
    context_tokens: int
    end_tokens: frozenset[int]
    grammars: Grammars
    marks: Marks
    identity: str
    """All that makes its keys and values what they are."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens included: markers of tools and thought are among them."""
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )


Weights = LanguageModel | Encoder
Loader = Generator[float, None, Weights]


def load(entry: ModelEntry) -> Loader:
    """Yields the fraction done, returns the model. Raises LoadError, whatever the library raised."""
    try:
        weight_files.verify(entry.path)
        for _ in integrity.check(entry.path):
            yield 0.0
        if entry.kind == "embed":
            return (yield from _load_encoder(entry))
        return (yield from _load_language_model(entry))
    except weight_files.UnreadableModel as error:
        raise LoadError(entry.name, str(error)) from error
    except Exception as error:  # a broken folder makes mlx-lm raise nearly anything
        reason = str(error).strip().splitlines() or [""]
        raise LoadError(entry.name, f"{reason[0][:300]} ({type(error).__name__})") from error


def _load_encoder(entry: ModelEntry) -> Generator[float, None, Encoder]:
    yield 0.1
    encoder = load_encoder(entry.path, entry.context_tokens)
    for done in _evaluate(_arrays(encoder.model)):
        yield 0.2 + 0.8 * done
    return encoder


def _load_language_model(entry: ModelEntry) -> Loader:
    yield 0.0
    model, config = load_model(entry.path, lazy=True)
    if not mx.metal.is_available():
        # The CPU build is ten times slower with bfloat16 and a hundred times with quantized weights.
        if config.get("quantization"):
            model = dequantize_model(model)
        model.set_dtype(mx.float32)
    yield 0.1
    tokenizer, ends, grammars = yield from _aside(0.1, lambda: _read_tokenizer(entry.path, config))
    for done in _evaluate(_arrays(model)):
        yield 0.2 + 0.8 * done
    marks, identity = marks_of(tokenizer), _identity(entry, _arrays(model))
    return LanguageModel(model, tokenizer, entry.context_tokens, ends, grammars, marks, identity)


def _identity(entry: ModelEntry, arrays: Sequence[mx.array]) -> str:
    """The files, and what they were turned into: on a CPU the weights are widened."""
    kinds = sorted({str(array.dtype) for array in arrays})
    return f"{fingerprint(entry.path)} {' '.join(kinds)}"


def _read_tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Any, frozenset[int], Grammars]:
    tokenizer = tokenizer_of(folder, config)
    ends = frozenset(tokenizer.eos_token_ids)
    return tokenizer, ends, Grammars(tokenizer._tokenizer, ends)


def _aside(fraction: float, work: Callable[[], T]) -> Generator[float, None, T]:
    """Do `work`, which touches nothing of MLX's, in a thread: it takes longer than a step of the others."""
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        result = pool.submit(work)
        while not result.done():
            wait([result], timeout=_ASIDE_WAIT_S)
            yield fraction
        return result.result()


def marks_of(tokenizer: Any) -> Marks:
    """What the model puts around thoughts and calls, as far as its tokenizer and template tell."""
    template = str(getattr(tokenizer, "chat_template", "") or "")
    think = (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None
    if think is None and "<think>" in template and "</think>" in template:
        think = ("<think>", "</think>")
    if not tokenizer.has_tool_calling:
        return Marks(think)
    return Marks(think, (tokenizer.tool_call_start, tokenizer.tool_call_end), tokenizer.tool_parser)


def _evaluate(arrays: Sequence[mx.array]) -> Iterator[float]:
    """Read the weights in slices; the fraction done after each."""
    total = sum(array.nbytes for array in arrays) or 1
    done = 0
    batch: list[mx.array] = []
    for array in arrays:
        batch.append(array)
        if sum(a.nbytes for a in batch) >= SLICE_BYTES:
            mx.eval(batch)
            done += sum(a.nbytes for a in batch)
            batch = []
            yield done / total
    mx.eval(batch)


def _arrays(model: Any) -> list[mx.array]:
    return [array for _, array in tree_flatten(model.parameters())]


def weights_bytes(weights: Weights) -> int:
    """Memory the weights take."""
    return sum(array.nbytes for array in _arrays(weights.model))


Load = Callable[[ModelEntry], Loader]
