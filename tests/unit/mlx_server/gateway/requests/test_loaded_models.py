"""Which models the next engine loads again."""

from __future__ import annotations

from mlx_server import protocol
from mlx_server.gateway.requests.loaded_models import LoadedModelTracker


def _report(name: str, expires_in_s: float | None) -> protocol.LoadedModelReport:
    return protocol.LoadedModelReport(name, "generate", 1, 1, expires_in_s)


def test_models_of_a_lost_engine_are_reloaded_for_the_rest_of_their_keep_alive():
    models = LoadedModelTracker()
    models.on_event(protocol.Alive(0, False, 0, (_report("kept", None), _report("timed", 42.0))))
    models.engine_lost()
    assert models.names == []
    assert models.to_reload(()) == [("kept", -1.0), ("timed", 42.0)]
    assert models.to_reload(["kept"]) == [("timed", 42.0)]


def test_models_that_were_unloaded_or_failed_to_reload_are_not_reloaded_on_the_next_engine():
    models = LoadedModelTracker()
    models.on_event(protocol.Loaded("a", 1, 0.1))
    models.on_event(protocol.Ready(("b",)))
    models.on_event(protocol.Unloaded("a"))
    models.reload_failed("b")
    assert models.to_reload(()) == []
