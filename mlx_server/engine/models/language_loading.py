"""Load a language model in steps: its weights, adapter, draft model, tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import mlx.core as mx
from mlx_lm.utils import dequantize_model, load_config, load_model

from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.generation.call_formats import output_markers
from mlx_server.engine.generation.harmony_tokens import find_harmony_tokens
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess, take_process
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.kv.request_caches import can_drop_tokens
from mlx_server.engine.layers.attention import replace_attention
from mlx_server.engine.layers.fast_activations import use_fast_activations
from mlx_server.engine.layers.fused_norms import use_fused_norms
from mlx_server.engine.layers.shared_rotations import share_rotations
from mlx_server.engine.layers.transposed_weights import keep_transposed
from mlx_server.engine.log import log_event
from mlx_server.engine.models.language_model import LanguageModel, SharedWeights, arrays_of
from mlx_server.engine.models.plausibility import logits_fault
from mlx_server.engine.models.tokenizers import (
    decoder_of,
    has_template_text,
    renders_to_tokens,
    take_tokenizer,
)
from mlx_server.engine.models.vocabulary import token_rows
from mlx_server.engine.models.weights import reading
from mlx_server.engine.vision.loading import ImageSupport, load_vision_part, read_image_support
from mlx_server.engine.vision.text_models import model_classes
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.adapters import Adapter
from mlx_server.model_store.files import weight_files
from mlx_server.model_store.files.fingerprint import fingerprint

T = TypeVar("T")
_BACKGROUND_POLL_S = 0.002

_in_memory: WeakValueDictionary[str, SharedWeights] = WeakValueDictionary()
"""The weights of the models in memory, by ModelEntry.weights_id. Only the MLX thread uses this."""


def weights_in_memory(entry: ModelEntry) -> SharedWeights | None:
    """Return this model's weights if another loaded model already holds them, so that both share them; else
    None.
    """
    return _in_memory.get(entry.weights_id)


def load_language_model(
    entry: ModelEntry, shared: SharedWeights | None
) -> Generator[float, None, LanguageModel]:
    """Load a language model. Yield the fraction done (0 to 1) after each step, and return the model.

    `shared` are the weights if another model in memory already holds them; else None. Exceptions of mlx-lm
    and of the checks of files are passed on, without conversion to a LoadError.
    """
    templates = take_process()  # the process starts while the weights are read
    try:
        return (yield from _load_beside(templates, entry, shared))
    except BaseException:  # includes GeneratorExit, which is raised if the load is abandoned
        templates.close()
        raise


def _load_beside(
    templates: TemplateProcess, entry: ModelEntry, shared: SharedWeights | None
) -> Generator[float, None, LanguageModel]:
    """Load the model while `templates`, the process that renders chat templates, starts. If the model has no
    chat template, close that process.

    `shared` are the weights if another model in memory already holds them; else None. Yield the fraction done
    (0 to 1) after each step, and return the model.
    """
    yield 0.0
    if shared is None:
        shared = yield from _load_shared(entry)
    model, adapter_arrays = shared.model, list[mx.array]()
    if entry.adapter is not None:
        model, adapter_arrays = _adapted(entry, entry.adapter, shared)
        for done in reading.read(adapter_arrays):
            yield 0.9 + 0.1 * done
        if fault := logits_fault(model, token=0):  # a failed self test would end the engine again and again
            raise weight_files.UnreadableModel(f"{entry.adapter.weights_file}: {fault} Train it again")
    draft = (yield from _load_draft(entry.name, entry.draft, model)) if entry.draft else None
    tokenizer = shared.tokenizer
    whole = LanguageModel(
        model=model,
        tokenizer=tokenizer,
        context_tokens=entry.context_tokens,
        end_tokens=shared.end_tokens,
        grammars=shared.grammars,
        markers=output_markers(tokenizer),
        identity=_identity(entry, arrays_of(model)),
        prompts=_prompt_maker(tokenizer, templates, entry, token_rows(model), shared.images),
        decode=decoder_of(tokenizer),
        shared=shared,
        vision=shared.vision,
        adapter_bytes=sum(array.nbytes for array in adapter_arrays),
        draft=draft,
    )
    prompts = yield from _in_background(1.0, whole.prompts.with_needs)
    return replace(whole, prompts=prompts)


def _load_shared(entry: ModelEntry) -> Generator[float, None, SharedWeights]:
    """Read and return the weights, the vision part and the tokenizer of a model, without its adapter. Yield
    the fraction done (0 to 1).
    """
    model, config = _read_model(entry)
    yield 0.1
    read = yield from _in_background(0.1, lambda: _read_tokenizer(entry.path, config))
    images = yield from _in_background(
        0.1, lambda: read_image_support(entry.path, config, read[0]._tokenizer)
    )
    images, vision = load_vision_part(images, model)
    for done in reading.read([*arrays_of(model), *(vision.arrays() if vision else ())]):
        yield 0.2 + (0.7 if entry.adapter or entry.draft else 0.8) * done
    shared = SharedWeights(model, config, *read, images, vision)
    if entry.weights_id:
        _in_memory[entry.weights_id] = shared
    return shared


def _read_model(entry: ModelEntry) -> tuple[Any, dict[str, Any]]:
    """Return the model and its configuration. The weights are read from the disk when they are evaluated."""
    with reading.on_own_stream():
        model, config = load_model(entry.path, lazy=True, get_model_classes=model_classes)
        if not computes_on_gpu():
            # MLX's CPU build is ten times slower with bfloat16, and a hundred times with quantized weights.
            if config.get("quantization"):
                model = dequantize_model(model)
            reading.convert_to_float32(model)
    share_rotations(model)
    replace_attention(model)
    use_fast_activations(model)
    use_fused_norms(model)
    keep_transposed(model)
    return model, config


def _load_draft(name: str, draft: ModelEntry, target: Any) -> Generator[float, None, Any]:
    """Load the draft model `draft`, which drafts tokens for the model `name` (`target`). Yield the fraction
    done, and return the draft model.

    If it cannot be used, log that and return None: the model then answers without it, only more slowly. The
    checksums of its files are not compared, because damaged weights would only draft wrong tokens.
    """
    try:
        weight_files.verify(draft.path)
        model, _ = _read_model(draft)
        for each, of in ((target, name), (model, draft.name)):
            if not can_drop_tokens(each):
                raise weight_files.UnreadableModel(f"the cache of {of} cannot drop tokens that were guessed")
        for done in reading.read(arrays_of(model)):
            yield 0.9 + 0.1 * done
        if fault := logits_fault(model, token=0):
            raise weight_files.UnreadableModel(f"{draft.path}: {fault}")
        return model
    except Exception as error:  # mlx-lm may raise any exception for a damaged folder
        cause = f"{(str(error).strip().splitlines() or [''])[0][:300]} ({type(error).__name__})"
        log_event("draft_model_not_used", cause=cause, model=name, draft=draft.name)
        return None


def _adapted(entry: ModelEntry, adapter: Adapter, shared: SharedWeights) -> tuple[Any, list[mx.array]]:
    """Return a model with the shared weights and an adapter, and the adapter's arrays.

    The model is built anew, without reading its weights, and then given the shared arrays. A copy of the
    shared model would not do, because it could refer to that model's layers, which have no adapter.
    """
    model, _ = _read_model(entry)
    model.update(shared.model.parameters())
    if shared.vision is not None:
        shared.vision.install(model)
    # Importing mlx-lm's adapters also imports its training code, 100 modules that no other model needs.
    from mlx_server.engine.models.adapters import add_adapter

    return model, add_adapter(model, adapter, in_float32=not computes_on_gpu())


def load_without_weights(entry: ModelEntry) -> LanguageModel:
    """Return, within a second, a LanguageModel that can render and tokenize prompts but has no weights
    (`model` is None). The caller must close it. Any thread may call this.

    The exceptions that a damaged folder causes are passed on, without conversion to a LoadError.
    """
    templates = take_process()
    try:
        config = load_config(entry.path)
        tokenizer, end_tokens, grammars = _read_tokenizer(entry.path, config)
        images = read_image_support(entry.path, config, tokenizer._tokenizer)
        return LanguageModel(
            model=None,
            tokenizer=tokenizer,
            context_tokens=entry.context_tokens,
            end_tokens=end_tokens,
            grammars=grammars,
            markers=output_markers(tokenizer),
            identity="",
            prompts=_prompt_maker(tokenizer, templates, entry, None, images).with_needs(),
            decode=decoder_of(tokenizer),
        )
    except BaseException:
        templates.close()
        raise


def _prompt_maker(
    tokenizer: Any,
    templates: TemplateProcess,
    entry: ModelEntry,
    rows: int | None,
    images: ImageSupport | str,
) -> PromptMaker:
    """Return the object that renders and tokenizes the prompts of a model. The process `templates` is closed
    if the model has no chat template.

    `rows` is how many token ids the model has weights for; None if unknown. `images` reads images, or is a
    text that says why images cannot be read.
    """
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
        images=None if isinstance(images, str) else images.new_reader(),
        no_images=images if isinstance(images, str) else "",
    )


def _identity(entry: ModelEntry, arrays: Sequence[mx.array]) -> str:
    """Return a text that identifies the model's keys and values: the fingerprint of its files, the types of
    its weights (which on a CPU differ from those in the files), and the adapter's digest.
    """
    types = sorted({str(array.dtype) for array in arrays})
    adapter = f" adapter {entry.adapter.digest}" if entry.adapter else ""
    return f"{fingerprint(entry.path)} {' '.join(types)}{adapter}"


def _read_tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Any, frozenset[int], Grammars]:
    tokenizer = take_tokenizer(folder, config)
    end_tokens = frozenset(tokenizer.eos_token_ids)
    if harmony := find_harmony_tokens(tokenizer):
        end_tokens |= harmony.ends_of_answer  # the files of some conversions do not name <|call|>
    return tokenizer, end_tokens, Grammars(tokenizer._tokenizer, end_tokens)


def _in_background(fraction: float, work: Callable[[], T]) -> Generator[float, None, T]:
    """Run `work` in a thread, and return its result or raise its exception. Until it has ended, yield
    `fraction`, the part of the load that is done (0 to 1), again and again, so that the caller can run a step
    of the models in memory between two yields.

    This is for work that does not use MLX, and takes longer than such a step.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        result = pool.submit(work)
        while not result.done():
            wait([result], timeout=_BACKGROUND_POLL_S)
            yield fraction
        return result.result()
