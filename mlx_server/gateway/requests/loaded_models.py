"""What the engine holds in memory, and what the next one must load again (R2.5). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mlx_server import protocol

FOR_EVER_S = -1.0


class ModelsToReload:
    """Follows the engine's reports; what an engine held when it died stays wanted until it is back."""

    def __init__(self) -> None:
        self._held: dict[str, protocol.LoadedModelReport] = {}
        self._present: set[str] = set()  # known at once; the figures come with the next report
        self._wanted: dict[str, float | None] = {}  # name → keep_alive_s for the next engine

    @property
    def held(self) -> list[protocol.LoadedModelReport]:
        """As of the engine's last report."""
        return list(self._held.values())

    @property
    def names(self) -> list[str]:
        return sorted(self._present)

    def on_event(self, event: protocol.Event) -> None:
        match event:
            case protocol.Alive(loaded=loaded):
                self._held = {model.model: model for model in loaded}
                self._present = set(self._held)
                for model in loaded:
                    self._wanted[model.model] = _keep_alive_s(model)
            case protocol.Loaded(model=name):
                self._present.add(name)
                self._wanted.setdefault(name, None)
            case protocol.Unloaded(model=name):
                self._held.pop(name, None)
                self._present.discard(name)
                self._wanted.pop(name, None)
            case protocol.Ready(loaded=names):
                self._present.update(names)
                for name in names:
                    self._wanted.setdefault(name, None)
            case _:
                pass

    def engine_lost(self) -> None:
        self._held, self._present = {}, set()

    def forget(self, name: str) -> None:
        """It could not be loaded again."""
        self._wanted.pop(name, None)

    def to_reload(self, present: Iterable[str]) -> list[tuple[str, float | None]]:
        """What was loaded in an earlier engine and is not `present` in this one, with its keep-alive."""
        here = set(present)
        return [(name, keep_alive_s) for name, keep_alive_s in self._wanted.items() if name not in here]


def _keep_alive_s(model: protocol.LoadedModelReport) -> float:
    return FOR_EVER_S if model.expires_in_s is None else max(1.0, model.expires_in_s)
