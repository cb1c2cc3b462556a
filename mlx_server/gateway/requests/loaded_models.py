"""Track which models the engine has loaded, and which models the next engine must load again. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_server import protocol
from mlx_server.gateway.requests.model_requests import LoadRequest


class LoadedModelTracker:
    """Tracks the loaded models by the engine's events. When an engine dies, its models stay on the list of
    those to load again until they are loaded.

    `memory_limit_bytes` is how much memory the engine may use; 0 before its first report.
    """

    def __init__(self) -> None:
        self.memory_limit_bytes = 0
        self._reports: dict[str, protocol.LoadedModelReport] = {}
        self._loaded: set[str] = set()  # updated at once, whereas `_reports` waits for the next report
        self._reload: dict[str, LoadRequest] = {}  # by name: the load for the next engine

    @property
    def reports(self) -> list[protocol.LoadedModelReport]:
        """Return the loaded models, each with its size and its keep-alive, as the current engine last
        reported them. The list is empty without an engine and before its first report.
        """
        return list(self._reports.values())

    @property
    def names(self) -> list[str]:
        return sorted(self._loaded)

    def on_event(self, event: protocol.Event) -> None:
        """Update the tracked models after an event of the current engine."""
        match event:
            case protocol.Alive(loaded=loaded, limit_bytes=limit_bytes):
                self.memory_limit_bytes = limit_bytes
                self._reports = {model.model: model for model in loaded}
                self._loaded = set(self._reports)
                for model in loaded:
                    self._reload[model.model] = _reload(model)
            case protocol.Loaded(model=name):
                self._loaded.add(name)
                self._reload.setdefault(name, LoadRequest(name, resumed=True))
            case protocol.Unloaded(model=name):
                self._reports.pop(name, None)
                self._loaded.discard(name)
                self._reload.pop(name, None)
            case protocol.Ready(loaded=names):
                self._loaded.update(names)
                for name in names:
                    self._reload.setdefault(name, LoadRequest(name, resumed=True))
            case _:
                pass

    def engine_lost(self) -> None:
        """Record that no model is loaded, because the engine is gone."""
        self._reports, self._loaded = {}, set()

    def reload_failed(self, name: str) -> None:
        """Remove a model from the list of those to load again, because loading it has failed."""
        self._reload.pop(name, None)

    def to_reload(self, present: Iterable[str]) -> list[LoadRequest]:
        """Return the requests that load the models of earlier engines into the current engine. A model in
        `present` (those of the current engine and of its requests) is not loaded again: if a client asked for
        a keep-alive of this model, a request only restores the keep-alive. A model with a keep-alive of 0 is
        left out, because nobody needs it after its last request.
        """
        excluded = set(present)
        loads = [load for load in self._reload.values() if load.keep_alive_s != 0]
        absent = [load for load in loads if load.model not in excluded]
        kept = [
            LoadRequest(load.model, load.keep_alive_s, resumed=True)
            for load in loads
            if load.model in excluded and load.keep_alive_s is not None
        ]
        return absent + kept


def _reload(model: protocol.LoadedModelReport) -> LoadRequest:
    """Return the request that loads a model again for the rest of its keep-alive."""
    rest_s = None if model.expires_in_s is None else max(1.0, model.expires_in_s)
    return LoadRequest(model.model, model.keep_alive_s, rest_s, resumed=True)
