"""Check requests that have to wait: their prompt, length, grammar, and whether they can ever get enough
memory.

The checks run on a separate thread, independent of the scheduler's queues and the MLX thread, and do not use
MLX. If the model is in memory, its own tokenizer thread renders and tokenizes the prompt. For any other
model, the checking thread reads everything except the weights. It keeps what it has read for further checks
of the same model, until it checks another unloaded model or has no checks for KEEP_READ_S seconds.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress

from msgspec.structs import replace

from mlx_server.engine.errors import EngineError, InsufficientMemory, LoadError, RequestError, wrong_kind
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.images import MAX_PIXELS
from mlx_server.engine.memory.guard import MemoryGuard
from mlx_server.engine.models.language_loading import load_without_weights
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.request_fence import confined
from mlx_server.engine.scheduling.loaded_models import LoadedModel
from mlx_server.engine.scheduling.loads import Catalog, find_entry, find_loaded_as
from mlx_server.engine.scheduling.request import PreparedPrompt
from mlx_server.engine.scheduling.runners.prompt_preparation import PromptPreparation
from mlx_server.model_store import ModelEntry
from mlx_server.protocol import Accepted, Event, Failed, Generate
from vestal.config import canonical

KEEP_READ_S = 10.0
"""How many seconds an unloaded model's tokenizer and template are cached for the next check."""

FINAL = (RequestError, LoadError, InsufficientMemory)
"""Errors that the request would get at any time. After other errors, the request is accepted and waits
for its turn.
"""


class EarlyChecks:
    """Checks each `Generate` operation that has `check_only`, and passes one event to `emit`: `Accepted`, or
    `Failed` if the request can certainly not be served.

    `loaded` returns the model with a given name if it is in memory; else None. `loaded_as` returns the name
    under which the model of an operation is loaded. For a model that is not in
    memory, `read` reads everything except the weights. `guard` decides whether the request can ever get
    enough memory.
    """

    def __init__(
        self,
        catalog: Catalog,
        loaded: Callable[[str], LoadedModel | None],
        loaded_as: Callable[[Generate], str],
        guard: MemoryGuard,
        emit: Callable[[Event], None],
        read: Callable[[ModelEntry], LanguageModel] = load_without_weights,
        max_image_pixels: int = MAX_PIXELS,
    ) -> None:
        self._max_image_pixels = max_image_pixels
        self._catalog, self._loaded, self._guard = catalog, loaded, guard
        self._loaded_as = loaded_as
        self._emit, self._read = emit, read
        self._grammars = Grammars.for_checks()
        self._kept: tuple[ModelEntry, LanguageModel] | None = None

    def start(self, inbox: queue.SimpleQueue[Generate]) -> None:
        """Start the thread that checks the requests in `inbox`, one after another, until the process ends.
        The thread passes the result of each check to `emit`.
        """
        threading.Thread(target=self._serve, args=(inbox,), name="early-checks", daemon=True).start()

    def _serve(self, inbox: queue.SimpleQueue[Generate]) -> None:
        while True:
            try:
                op = inbox.get(timeout=KEEP_READ_S if self._kept else None)
            except queue.Empty:
                self._drop_kept()
                continue
            self._emit(self.answer(op))

    def answer(self, op: Generate) -> Accepted | Failed:
        """Check the request. Return `Accepted`, or `Failed` if the request can certainly not be served."""
        try:
            with confined(op.id, "checking it"):
                return Accepted(op.id, self._check(replace(op, model=canonical(op.model))))
        except FINAL as error:
            if not error.retryable:
                return error.failed(op.id)
        except EngineError:
            pass
        return Accepted(op.id)

    def _check(self, op: Generate) -> int:
        """Check the request's grammar, prompt and memory. Return the length of the prompt in tokens. Raises
        EngineError if a check fails.
        """
        if op.json_schema is not None:
            self._grammars.check(op.json_schema)
        entry, prompt = self._prompt(op)
        tokens = len(prompt.generation.prompt)
        images = [placed.picture.pixels for placed in prompt.pictures]
        self._guard.check_possible(entry, op, tokens, prompt.generation.limit_tokens, images)
        return tokens

    def _prompt(self, op: Generate) -> tuple[ModelEntry, PreparedPrompt]:
        model = self._loaded(canonical(self._loaded_as(op)))
        if model is not None:
            with suppress(RuntimeError, CancelledError):  # it has just been unloaded
                return model.entry, model.runner.check(op).result()
        requested = op.requested_model
        name = find_loaded_as(self._catalog, requested) if requested else op.model
        entry = find_entry(self._catalog, name)
        if entry.kind != "generate":
            raise wrong_kind(op, entry.kind)
        # The weights are missing, and shared prefixes are not needed here.
        preparation = PromptPreparation(self._text_side(entry), finds_shared_prefix=False)
        return entry, preparation.prepare(op, now=0.0, load_s=0.0)

    def _text_side(self, entry: ModelEntry) -> LanguageModel:
        if self._kept is None or self._kept[0] != entry:
            self._drop_kept()
            self._kept = entry, self._read(entry)
            self._kept[1].prompts.limit_images(self._max_image_pixels)
        return self._kept[1]

    def _drop_kept(self) -> None:
        if self._kept is not None:
            self._kept[1].close()
            self._kept = None
