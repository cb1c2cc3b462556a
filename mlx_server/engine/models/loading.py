"""Load a model in steps, so that the MLX thread can serve the models in memory in between."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import dequantize_model, load_config, load_model

from mlx_server.engine.embeddings.encoder import Encoder, load_encoder
from mlx_server.engine.errors import LoadError
from mlx_server.engine.generation.call_formats import output_markers
from mlx_server.engine.generation.detokenizer import Decode
from mlx_server.engine.generation.harmony_tokens import find_harmony_tokens
from mlx_server.engine.generation.output_parser import OutputMarkers
from mlx_server.engine.generation.prompts.render import PromptMaker
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess, take_process
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.models.tokenizers import (
    decoder_of,
    has_template_text,
    renders_to_tokens,
    take_tokenizer,
)
from mlx_server.engine.models.vocabulary import token_rows
from mlx_server.memory_forecast.weights import SLICE_BYTES
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.files import integrity, model_folder, weight_files
from mlx_server.model_store.files.fingerprint import fingerprint

T = TypeVar("T")
_BACKGROUND_POLL_S = 0.002


@dataclass(frozen=True)
class LanguageModel:
    """A model that generates text, its tokenizer (mlx-lm's wrapper), and what was derived from both.

    `decode` returns the text of token ids. `identity` identifies everything that determines the model's keys
    and values: its files, and the types of its weights. Cached prompts are only used under the same identity.
    """

    model: Any
    tokenizer: Any
    context_tokens: int
    end_tokens: frozenset[int]
    grammars: Grammars
    markers: OutputMarkers
    identity: str
    prompts: PromptMaker
    decode: Decode

    def close(self) -> None:
        """End the model's template process."""
        if self.prompts.templates is not None:
            self.prompts.templates.close()


Weights = LanguageModel | Encoder
"""A model in memory."""

Loader = Generator[float, None, Weights]
"""Yields the fraction done, returns the model."""


def load(entry: ModelEntry) -> Loader:
    """Load the model in steps: yield the fraction done (0 to 1) after each, and return the model.

    Raises LoadError if the model cannot be loaded.
    """
    try:
        weight_files.verify(entry.path)
        model_folder.check_templates(entry.path)
        for _ in integrity.check(entry.path):
            yield 0.0
        if entry.kind == "embed":
            return (yield from _load_encoder(entry))
        return (yield from _load_language_model(entry))
    except weight_files.UnreadableModel as error:
        raise LoadError(entry.name, str(error)) from error
    except Exception as error:  # mlx-lm may raise any exception for a damaged folder
        reason = str(error).strip().splitlines() or [""]
        raise LoadError(entry.name, f"{reason[0][:300]} ({type(error).__name__})") from error


def _load_encoder(entry: ModelEntry) -> Generator[float, None, Encoder]:
    yield 0.1
    encoder = load_encoder(entry.path, entry.context_tokens)
    for done in _evaluate(_arrays(encoder.model)):
        yield 0.2 + 0.8 * done
    return encoder


def _load_language_model(entry: ModelEntry) -> Loader:
    templates = take_process()  # it starts while the weights are read
    try:
        return (yield from _load_beside(templates, entry))
    except BaseException:  # or the load is abandoned, which raises GeneratorExit
        templates.close()
        raise


def _load_beside(templates: TemplateProcess, entry: ModelEntry) -> Loader:
    """Load the model while its template process starts. `templates` is closed if the model
    does not need it.
    """
    yield 0.0
    model, config = load_model(entry.path, lazy=True)
    if not mx.metal.is_available():
        # The CPU build is ten times slower with bfloat16 and a hundred times with quantized weights.
        if config.get("quantization"):
            model = dequantize_model(model)
        model.set_dtype(mx.float32)
    yield 0.1
    read = yield from _in_background(0.1, lambda: _read_tokenizer(entry.path, config))
    tokenizer, end_tokens, grammars = read
    for done in _evaluate(_arrays(model)):
        yield 0.2 + 0.8 * done
    whole = LanguageModel(
        model=model,
        tokenizer=tokenizer,
        context_tokens=entry.context_tokens,
        end_tokens=end_tokens,
        grammars=grammars,
        markers=output_markers(tokenizer),
        identity=_identity(entry, _arrays(model)),
        prompts=_prompt_maker(tokenizer, templates, entry, token_rows(model)),
        decode=decoder_of(tokenizer),
    )
    prompts = yield from _in_background(1.0, whole.prompts.with_needs)
    return replace(whole, prompts=prompts)


def load_without_weights(entry: ModelEntry) -> LanguageModel:
    """Return a LanguageModel that can make prompts but has no weights (`model` is None), within a second. The
    caller has to close it. Any thread may call this. Raises the errors of reading a damaged folder.
    """
    templates = take_process()
    try:
        tokenizer, end_tokens, grammars = _read_tokenizer(entry.path, load_config(entry.path))
        return LanguageModel(
            model=None,
            tokenizer=tokenizer,
            context_tokens=entry.context_tokens,
            end_tokens=end_tokens,
            grammars=grammars,
            markers=output_markers(tokenizer),
            identity="",
            prompts=_prompt_maker(tokenizer, templates, entry, None).with_needs(),
            decode=decoder_of(tokenizer),
        )
    except BaseException:
        templates.close()
        raise


def _prompt_maker(
    tokenizer: Any, templates: TemplateProcess, entry: ModelEntry, rows: int | None
) -> PromptMaker:
    """Return the maker of a model's prompts. `templates` is closed if the model does not need it."""
    if not (needed := has_template_text(tokenizer)):
        templates.close()
    calls = output_markers(tokenizer).calls
    return PromptMaker(
        tokenizer,
        templates if needed else None,
        entry.context_tokens,
        rows,
        renders_to_tokens(tokenizer),
        (calls[0].start, calls[0].end),
    )


def _identity(entry: ModelEntry, arrays: Sequence[mx.array]) -> str:
    """Return the files' fingerprint and the weights' types, which on a CPU differ from those in the files."""
    types = sorted({str(array.dtype) for array in arrays})
    return f"{fingerprint(entry.path)} {' '.join(types)}"


def _read_tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Any, frozenset[int], Grammars]:
    tokenizer = take_tokenizer(folder, config)
    end_tokens = frozenset(tokenizer.eos_token_ids)
    if harmony := find_harmony_tokens(tokenizer):
        end_tokens |= harmony.ends_of_answer  # the files of some conversions do not name <|call|>
    return tokenizer, end_tokens, Grammars(tokenizer._tokenizer, end_tokens)


def _in_background(fraction: float, work: Callable[[], T]) -> Generator[float, None, T]:
    """Run `work` in a thread, yield `fraction` until it is done, and return its result.

    For work that does not use MLX and takes longer than a step of the models in memory.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        result = pool.submit(work)
        while not result.done():
            wait([result], timeout=_BACKGROUND_POLL_S)
            yield fraction
        return result.result()


def _evaluate(arrays: Sequence[mx.array]) -> Iterator[float]:
    """Read the weights from the disk in slices of SLICE_BYTES; yield the fraction done after each."""
    total = sum(array.nbytes for array in arrays) or 1
    done = 0
    pending: list[mx.array] = []
    for array in arrays:
        pending.append(array)
        if (pending_bytes := sum(a.nbytes for a in pending)) >= SLICE_BYTES:
            mx.eval(pending)
            done += pending_bytes
            pending = []
            yield done / total
    mx.eval(pending)


def _arrays(model: Any) -> list[mx.array]:
    return [array for _, array in tree_flatten(model.parameters())]


def weights_bytes(weights: Weights) -> int:
    """Return the bytes that the weights take in memory."""
    return sum(array.nbytes for array in _arrays(weights.model))
