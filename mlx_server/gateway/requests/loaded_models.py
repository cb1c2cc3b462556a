"""Track which models the engine has loaded, and which models the next engine must load again. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_server import protocol

KEEP_LOADED_S = -1.0
"""The keep-alive that never expires, as the protocol between gateway and engine represents it."""


class LoadedModelTracker:
    """Tracks the loaded models by the engine's events. When an engine dies, its models stay on the list of
    those to load again until they are loaded.

    `memory_limit_bytes` is how much memory the engine may use; 0 before its first report.
    """

    def __init__(self) -> None:
        self.memory_limit_bytes = 0
        self._reports: dict[str, protocol.LoadedModelReport] = {}
        self._loaded: set[str] = set()  # updated at once, whereas `_reports` waits for the next report
        self._reload: dict[str, float | None] = {}  # name -> keep_alive_s for the next engine

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
                    self._reload[model.model] = _keep_alive_s(model)
            case protocol.Loaded(model=name):
                self._loaded.add(name)
                self._reload.setdefault(name, None)
            case protocol.Unloaded(model=name):
                self._reports.pop(name, None)
                self._loaded.discard(name)
                self._reload.pop(name, None)
            case protocol.Ready(loaded=names):
                self._loaded.update(names)
                for name in names:
                    self._reload.setdefault(name, None)
            case _:
                pass

    def engine_lost(self) -> None:
        """Record that no model is loaded, because the engine is gone."""
        self._reports, self._loaded = {}, set()

    def reload_failed(self, name: str) -> None:
        """Remove a model from the list of those to load again, because loading it has failed."""
        self._reload.pop(name, None)

    def to_reload(self, present: Iterable[str]) -> list[tuple[str, float | None]]:
        """Return (name, keep-alive in seconds) of the models of earlier engines that are not in `present`,
        the models of the current engine. A keep-alive of None stands for the default.
        """
        excluded = set(present)
        return [(name, keep_alive_s) for name, keep_alive_s in self._reload.items() if name not in excluded]


def _keep_alive_s(model: protocol.LoadedModelReport) -> float:
    return KEEP_LOADED_S if model.expires_in_s is None else max(1.0, model.expires_in_s)
