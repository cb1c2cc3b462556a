"""The settings accept only what the orchestrator accepts. Otherwise it ended with exit code 78, and named an
environment variable that the user had never set.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import orchestrator.config
from host_agent.services.child_environment import native_orchestrator
from vestal.config import ConfigError, load
from vestal.config.settings.orchestrator import OrchestratorSection

ONLY_FOR_COMPOSE = {"workers"}
FIELDS = OrchestratorSection.model_json_schema()["properties"]
NUMBERS = sorted(
    name for name, field in FIELDS.items()
    if field.get("type") in ("integer", "number") and name not in ONLY_FOR_COMPOSE
)  # fmt: skip


def bound(name: str, *words: str) -> float:
    return next(FIELDS[name][word] for word in words if word in FIELDS[name])


def accepted(home: Path, **section: Any) -> orchestrator.config.Config:
    """Return the configuration that the orchestrator gets. Raises ConfigError of the one that refuses it."""
    (home / "vestal.yaml").write_text(json.dumps({"orchestrator": section}))
    config = load({"HOME": str(home)}, home)
    return orchestrator.config.load({**native_orchestrator(config), "VESTAL_TOKEN": "t" * 32})


@pytest.mark.parametrize("name", NUMBERS)
def test_orchestrator_accepts_both_ends_of_each_bound_of_its_settings(tmp_path: Path, name: str):
    least, most = bound(name, "minimum", "ge"), bound(name, "maximum", "le")
    accepted(tmp_path, **{name: least})
    accepted(tmp_path, **{name: most})
    for outside in (least - 0.05 if isinstance(least, float) else least - 1, most + 1):
        with pytest.raises(ConfigError, match=f"orchestrator.{name} is .* it should be"):
            accepted(tmp_path, **{name: outside})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mlx_api_url", "ftp://x", "not the address of a server"),
        ("mlx_api_url", "http://a:1,http://b:99999", "not the address of a server"),
        ("mac_llm_url", "http://[::1:11435", "not the address of a server"),
        ("recovery_webhook_url", "http://host..name:9099/recover", "not the address of a server"),
        ("agents", "~nosuchuser/agents.yaml", "give the whole path"),
        ("knowledge", "~nosuchuser/notes", "give the whole path"),
        ("database_url", "postgresql://x", "postgresql://USER"),
        ("database_url", "postgresql://u:s3c@ret@host/d", "%40"),
        ("database_url", "postgresql://u:s3c#ret@host/d", "%40"),
        ("database_url", "postgresql://u:s3c%ret@host/d", "%40"),
        ("database_url", "postgresql://u:12/s3c@host/d", "%40"),
        ("database_url", "postgresql://u:s3cret@host:99999/d", "%40"),
    ],
)
def test_setting_that_the_orchestrator_would_refuse_is_refused_by_every_command(
    tmp_path: Path, name: str, value: str, words: str
):
    with pytest.raises(ConfigError, match=f"orchestrator.{name}") as caught:
        accepted(tmp_path, **{name: value})
    (problem,) = caught.value.problems
    assert words in problem
    assert "s3c" not in problem


def test_context_of_two_million_tokens_is_accepted(tmp_path: Path):
    """The limit was 1,048,576, and there are models with more."""
    assert accepted(tmp_path, context_tokens=2_097_152).context_tokens == 2_097_152


def test_settings_and_orchestrator_accept_an_address_without_http_and_a_list_of_addresses(tmp_path: Path):
    found = accepted(tmp_path, mlx_api_url="localhost:11435/v1, http://b:2", recovery_webhook_url="")
    assert found.mlx_urls == ("http://localhost:11435", "http://b:2")
    assert accepted(tmp_path, database_url="postgres://u:p%40ss@[::1]:5432/d?sslmode=require").database_url
    on_a_socket = "postgresql://u@/db?host=%2Fvar%2Frun%2Fpostgresql"
    assert accepted(tmp_path, database_url=on_a_socket).database_url == on_a_socket
