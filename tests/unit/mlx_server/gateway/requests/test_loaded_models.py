"""Which models the next engine loads again."""

from __future__ import annotations

from mlx_server import protocol
from mlx_server.gateway.requests.loaded_models import LoadedModelTracker
from mlx_server.gateway.requests.model_requests import LoadRequest


def _report(name: str, expires_in_s: float | None, kept_s: float | None = None) -> protocol.LoadedModelReport:
    return protocol.LoadedModelReport(name, "generate", 1, 1, expires_in_s, keep_alive_s=kept_s)


def test_models_of_a_lost_engine_are_reloaded_for_the_rest_of_their_keep_alive():
    models = LoadedModelTracker()
    reports = _report("kept", None, -1.0), _report("usual", 42.0), _report("long", 0.2, 1800.0)
    models.on_event(protocol.Alive(0, False, 0, reports))
    models.engine_lost()
    assert models.names == []
    usual = LoadRequest("usual", None, 42.0, resumed=True)
    long = LoadRequest("long", 1800.0, 1.0, resumed=True)  # the keep-alive holds again from its next use on
    assert models.to_reload(()) == [LoadRequest("kept", -1.0, resumed=True), usual, long]


def test_keep_alive_that_a_client_asked_for_is_restored_for_a_model_that_the_next_engine_has_already():
    models = LoadedModelTracker()
    models.on_event(protocol.Alive(0, False, 0, (_report("kept", None, -1.0), _report("usual", 42.0))))
    models.engine_lost()
    assert models.to_reload(["kept", "usual"]) == [LoadRequest("kept", -1.0, resumed=True)]


def test_model_of_a_lost_engine_is_not_reloaded_by_the_next_engine_if_its_keep_alive_is_zero():
    """The next engine once loaded such a model although the only request for it had ended."""
    models = LoadedModelTracker()
    models.on_event(protocol.Alive(0, False, 0, (_report("m", 0.0, 0.0),)))
    models.engine_lost()
    assert models.to_reload(["m"]) == models.to_reload(()) == []


def test_models_that_were_unloaded_or_failed_to_reload_are_not_reloaded_on_the_next_engine():
    models = LoadedModelTracker()
    models.on_event(protocol.Loaded("a", 1, 0.1))
    models.on_event(protocol.Ready(("b",)))
    models.on_event(protocol.Unloaded("a"))
    models.reload_failed("b")
    assert models.to_reload(()) == []
