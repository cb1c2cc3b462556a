"""Which models the settings request from this machine's MLX server."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_agent.doctor.models.missing_model import requested_models
from vestal.config import load


@pytest.mark.parametrize(
    ("env", "requests"),
    [
        ({}, True),
        ({"MLX_API_URL": "http://mini:11435"}, False),
        ({"MAC_LLM_URL": "other-mac:11435"}, False),
        ({"MAC_LLM_URL": "http://127.0.0.1:11435"}, True),
        ({"MLX_API_URL": "http://mini:1, localhost:11435/v1"}, True),
        ({"MLX_API_URL": "http://mini:1", "MAC_LLM_URL": "http://127.0.0.1:11435"}, False),
    ],
)
def test_models_of_the_orchestrator_are_requested_only_if_it_uses_this_machines_server(
    tmp_path: Path, env: dict[str, str], requests: bool
):
    config = load({"HOME": str(tmp_path), "VESTAL_MLX__PRELOAD": "[]", **env}, tmp_path)
    names = {model.name for model in requested_models(config)}
    assert names == ({config.orchestrator.chat_model, config.orchestrator.embed_model} if requests else set())
