"""The engine's scheduler in this process, with real models: its requests, and the calls of their towers."""

from __future__ import annotations

import base64
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlx_server.engine.background_workers import BackgroundWorkers
from mlx_server.engine.generation.batch import BatchLimits
from mlx_server.engine.models.language_model import LanguageModel
from mlx_server.engine.scheduling.backend import open_backend
from mlx_server.engine.scheduling.scheduler import Scheduler
from mlx_server.engine.settings import CacheSettings, EngineSettings
from mlx_server.engine.status import Status
from mlx_server.engine.vision.tower import VisionTower
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.adapters import read_adapter
from mlx_server.protocol import Done, Failed, Generate, Op, Sampling, Token
from vestal.config import canonical

STEP_TOKENS = 16
GREEDY = Sampling(temperature=0.0)


class VisionEngine:
    """Serves the models in `folders`, by their names. With `caches`, the prompt cache is in `cache`."""

    def __init__(
        self,
        folders: Sequence[Path],
        cache: Path,
        caches: bool = True,
        drafting: bool = False,
        adapter: Path | None = None,
        **more: Any,
    ) -> None:
        self.events: list[Any] = []
        self.models: dict[str, LanguageModel] = {}
        inbox: queue.SimpleQueue[Op | None] = queue.SimpleQueue()
        settings = EngineSettings(
            (),
            9,
            -1.0,
            1.0,
            5.0,
            BatchLimits(8, STEP_TOKENS, drafting),
            CacheSettings(cache, caches << 26, caches << 28),
            **more,
        )
        entries = [_entry(folder) for folder in folders]
        if adapter is not None:
            entries[0] = replace(entries[0], weights_id=str(cache))  # not those of another engine here
            found = read_adapter(adapter, entries[0].path, entries[0].digest)
            entries.append(replace(entries[0], name=canonical(adapter.name), adapter=found))
        backend = open_backend(settings, BackgroundWorkers(lambda: inbox.put(None)))
        backend = replace(backend, load=self._remembering(backend.load))
        self._inbox = inbox
        self._scheduler = Scheduler(
            settings, lambda: (entries, []), inbox, self.events.extend, Status(), backend=backend
        )
        self._cache = backend.prompt_cache

    def _remembering(self, load: Any) -> Any:
        def loader(entry: ModelEntry) -> Any:
            weights = self.models[entry.name] = yield from load(entry)
            return weights

        return loader

    def run(self, *ops: Generate, timeout_s: float = 60.0) -> list[Done | Failed]:
        """Run requests together until all have ended. Return how each one ended."""
        self.send(*ops)
        deadline = time.monotonic() + timeout_s
        while not all(op.id in self._ends() for op in ops):
            assert time.monotonic() < deadline, self.events[-5:]
            self._scheduler.turn()
        return [self._ends()[op.id] for op in ops]

    def send(self, *ops: Op) -> None:
        """Queue operations for the next turn."""
        for op in ops:
            self._inbox.put(op)

    def turn_until(self, wanted: Callable[[Any], object], timeout_s: float = 60.0) -> None:
        """Make turns until there is such an event. How many it takes depends on the background threads."""
        deadline = time.monotonic() + timeout_s
        while not any(wanted(event) for event in self.events):
            assert time.monotonic() < deadline, "there was no such event"
            self._scheduler.turn()

    def check(self, op: Generate) -> Any:
        """Return the answer to a request that is only checked."""
        return self._scheduler.early_checks.answer(op)

    def _ends(self) -> dict[str, Done | Failed]:
        return {event.id: event for event in self.events if isinstance(event, (Done, Failed))}

    def tokens(self, id: str) -> list[int]:
        """Return the tokens of the answer to request `id`."""
        return [event.token for event in self.events if isinstance(event, Token) and event.id == id]

    def answer(self, op: Generate) -> list[int]:
        """Run a request that must succeed, and return the tokens of its answer."""
        (end,) = self.run(op)
        assert isinstance(end, Done), end
        return self.tokens(op.id)

    def tower_calls(self, model: str) -> int:
        """Return for how many images the tower of a model was run."""
        return self.tower(model).calls

    def tower(self, model: str) -> VisionTower:
        """Return the tower of a model that is loaded."""
        vision = self.models[canonical(model)].vision
        assert vision is not None
        return vision.tower

    def close(self) -> None:
        """Stop as an engine does that is replaced: what was stored is on disk."""
        self._scheduler.drain(1.0)
        self._scheduler.persist_caches(60.0)
        self._scheduler.unload_models()
        self._scheduler.early_checks._drop_kept()  # its thread, which does so after a while, was not started


def _entry(folder: Path) -> ModelEntry:
    return ModelEntry(
        canonical(folder.name),
        folder,
        "generate",
        1,
        1,
        0.0,
        "mlx",
        "llava",
        "",
        "",
        4096,
        digest=folder.name,
    )


def chat(id: str, model: str, *parts: str | bytes, max_tokens: int = 10, **more: Any) -> Generate:
    """Return a greedy request with one message: texts, and the bytes of image files."""
    content = [{"type": "image"} if isinstance(p, bytes) else {"type": "text", "text": p} for p in parts]
    images = tuple(base64.b64encode(part).decode() for part in parts if isinstance(part, bytes))
    messages = ({"role": "user", "content": content if images else "".join(map(str, parts))},)
    return Generate(
        id, model, "chat",
        **{"messages": messages, "images": images, "max_tokens": max_tokens, "sampling": GREEDY, **more},
    )  # fmt: skip
