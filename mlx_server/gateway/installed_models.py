"""Find installed models by name for the dialects, and explain why a model cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Literal

from mlx_server.gateway.errors import (
    BadRequest,
    NotFound,
    ServerFault,
    listed,
    out_of_resources,
    quoted,
)
from mlx_server.model_store import BrokenModel, ModelEntry, layout, remove, survey
from vestal.config import Config, find_named
from vestal.platform.exhaustion import is_exhausted
from vestal.supervision import Clock

ModelKind = Literal["generate", "embed", "rerank"]
_MAKES = {"generate": "text", "embed": "embeddings", "rerank": "rankings of documents"}
_NOT_OF_KIND = {
    "generate": "not_a_chat_model",
    "embed": "not_an_embedding_model",
    "rerank": "not_a_rerank_model",
}

MAX_AGE_S = 1.0
"""For how long a list of the models is reused, so that a burst of requests reads the folders once."""


class InstalledModels:
    """Finds and removes the models in the folders of the model store. The list of models is cached for
    MAX_AGE_S seconds.
    """

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._entries: list[ModelEntry] = []
        self._broken: list[BrokenModel] = []
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def all(self) -> list[ModelEntry]:
        """Return every installed model that is not damaged, in the order of their names. Raises Unavailable
        if the folders cannot be read for lack of file descriptors or memory, and no earlier list exists.
        """
        async with self._reading:
            now = self._clock.now()
            if self._read_at is None or now - self._read_at > MAX_AGE_S:
                self._read_at = now  # not after reading, since `changed` may be called meanwhile
                try:
                    await self._read()
                except BaseException:
                    self._read_at = None
                    raise
            return self._entries

    async def _read(self) -> None:
        """Read the lists of models from the folders. Without a free file descriptor, earlier lists stay in
        use; if there are none, raise Unavailable.
        """
        try:
            self._entries, self._broken = await asyncio.to_thread(survey, self._config)
        except OSError as error:
            if not is_exhausted(error):
                raise
            if not self._entries:
                raise out_of_resources(error) from error

    async def get(self, name: str, kind: ModelKind | None = None) -> ModelEntry:
        """Return the model with this name, in any of the spellings that `canonical` knows.

        Raises NotFound if no such model is installed, BadRequest if the model is not of the wanted `kind`,
        and ServerFault if its folder is damaged.
        """
        entries = await self.all()
        entry = find_named(name, entries, lambda entry: entry.name)
        if entry is None:
            if broken := find_named(name, self._broken, lambda broken: broken.name):
                message = f"Model {quoted(name)} cannot be loaded: {broken.reason}."
                raise ServerFault("model_load_failed", message, model=name)
            raise self._not_found(name, [entry.name for entry in entries])
        if kind is not None and entry.kind != kind:
            message = f"Model {quoted(name)} makes {_MAKES[entry.kind]}, not {_MAKES[kind]}."
            raise BadRequest(_NOT_OF_KIND[kind], message)
        return entry

    async def installed_name(self, name: str) -> str:
        """Return the canonical name of an installed model, even of a damaged one. Raises NotFound if no such
        model is installed.
        """
        available = [entry.name for entry in await self.all()]
        found = find_named(name, [*available, *(broken.name for broken in self._broken)], str)
        if found is None:
            raise self._not_found(name, available)
        return found

    async def remove(self, name: str) -> None:
        """Delete a model, even a damaged one. Raises NotFound if no such model is installed, BadRequest if
        Vestal did not fetch it, and ModelStoreError if the store cannot be written.
        """
        wanted = await self.installed_name(name)
        if not await asyncio.to_thread(remove, self._config, wanted):
            if self._config.adapter(wanted) is not None:
                message = (
                    f"Model {quoted(name)} is configured: take it out of `adapters` in the configuration."
                )
                raise BadRequest("invalid_request", message)
            found = next((entry for entry in self._entries if entry.name == wanted), None)
            path = "its folder" if found is None else found.path
            raise BadRequest(
                "invalid_request", f"Model {quoted(name)} was not fetched by Vestal; delete {path} yourself."
            )
        self.changed()

    def start_clean_up(self) -> None:
        """Start a thread that deletes the remains of killed processes from the model store. If such a process
        was replacing a model, the thread moves the old model back. Errors are ignored, because the next
        change of the store tries again.

        The thread may wait for a lock or a slow disk, and does not delay the end of this process.
        """
        threading.Thread(target=self._clean_up, name="model-store-clean-up", daemon=True).start()

    def _clean_up(self) -> None:
        with contextlib.suppress(OSError):
            layout.clean_up(self._config.models_dir)
        self.changed()

    def changed(self) -> None:
        """Record that a model was fetched or removed, so that the next call reads the folders again."""
        self._read_at = None

    def _not_found(self, name: str, available: list[str]) -> NotFound:
        remedy = ""
        if self._config.model_source(name) is not None or self._config.adapter(name) is not None:
            remedy = f" It is configured but not fetched: run `vestal models pull {name}`."
        message = f"Model {quoted(name)} was not found; there are: {listed(available)}.{remedy}"
        return NotFound("model_not_found", message, model=name, available=available)
