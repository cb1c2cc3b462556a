"""The environment of the agent's children and containers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host_agent.errors import HostAgentError
from host_agent.services import child_environment
from host_agent.services.docker.compose import Compose, last_lines
from host_agent.services.orchestrator import knowledge_mounts
from vestal.config import load


def config(tmp_path: Path, **env: str):
    return load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "v"), **env}, tmp_path)


def test_orchestrator_reaches_the_host_by_name_in_a_container_and_by_loopback_natively(tmp_path: Path):
    settings = config(tmp_path, VESTAL_MLX_PORT="1234", VESTAL_AGENT_PORT="4321")
    inside = child_environment.orchestrator(settings, child_environment.HOST_FROM_CONTAINER)
    assert inside["MLX_API_URL"] == inside["MAC_LLM_URL"] == "http://host.docker.internal:1234"
    assert inside["RECOVERY_WEBHOOK_URL"] == "http://host.docker.internal:4321/recover"
    assert inside["OLLAMA_BASE_URL"] == "http://host.docker.internal:11434"
    native = child_environment.native_orchestrator(settings)
    assert native["MLX_API_URL"] == "http://127.0.0.1:1234"
    assert native["OLLAMA_BASE_URL"] == "http://127.0.0.1:11434"
    assert native["VESTAL_TOKEN_FILE"] == str(tmp_path / "v" / "token")


def test_configured_addresses_are_passed_to_the_orchestrator(tmp_path: Path):
    settings = config(
        tmp_path, MLX_API_URL="http://10.1.1.1:8000", RECOVERY_WEBHOOK_URL="http://localhost:1/recover"
    )
    environment = child_environment.orchestrator(settings, child_environment.HOST_FROM_CONTAINER)
    assert environment["MLX_API_URL"] == "http://10.1.1.1:8000"
    assert environment["RECOVERY_WEBHOOK_URL"] == "http://host.docker.internal:1/recover"


def test_ollama_switched_off_has_an_empty_address(tmp_path: Path):
    settings = config(tmp_path, VESTAL_OLLAMA__MANAGE="off")
    assert child_environment.orchestrator(settings, "127.0.0.1")["OLLAMA_BASE_URL"] == ""


def test_addresses_of_other_hosts_come_after_this_machines(tmp_path: Path):
    settings = config(
        tmp_path,
        VESTAL_OLLAMA__MANAGE="off",
        VESTAL_ORCHESTRATOR__MORE_MLX_URLS="http://studio:11435, http://mini:11435",
        VESTAL_ORCHESTRATOR__MORE_OLLAMA_URLS="http://mini:11434",
        VESTAL_ORCHESTRATOR__MORE_API_KEY="k",
    )
    environment = child_environment.orchestrator(settings, "127.0.0.1")
    assert environment["MLX_API_URL"] == "http://127.0.0.1:11435,http://studio:11435,http://mini:11435"
    assert environment["OLLAMA_BASE_URL"] == ",http://mini:11434"  # none of this machine's
    assert environment["VESTAL_LLM_API_KEY"] == "k"
    assert "more_api_key" not in repr(settings.orchestrator)


def test_compose_environment_has_the_homes_project_and_memory_limit(tmp_path: Path):
    settings = config(tmp_path, VESTAL_ORCHESTRATOR__MEM_LIMIT="512m")
    compose = Compose(settings)
    assert compose.project == settings.home.label
    environment = compose.environment()
    assert environment["VESTAL_ORCHESTRATOR_MEM_LIMIT"] == "512m"
    assert environment["VESTAL_HOME"] == str(settings.home.root)


def test_knowledge_folders_are_passed_to_native_children_and_mounted_in_containers(tmp_path: Path):
    given = f"{{reader: {tmp_path}/no$tes, docs: docs}}"
    settings = config(tmp_path, VESTAL_ORCHESTRATOR__KNOWLEDGE=given)
    docs = str(child_environment.REPO / "docs")
    environment = child_environment.native_orchestrator(settings)
    assert environment["VESTAL_KNOWLEDGE"] == f"reader={tmp_path}/no$tes,docs={docs}"

    environment = Compose(settings).environment()
    assert environment["VESTAL_KNOWLEDGE_NAME"] == "reader"
    assert environment["VESTAL_KNOWLEDGE_PATH"] == f"{tmp_path}/no$tes"
    (file,) = knowledge_mounts.write(settings)
    services = json.loads(file.read_text())["services"]
    mount = {"type": "bind", "source": docs, "target": "/knowledge/docs", "read_only": True}
    assert services == {name: {"volumes": [mount]} for name in ("orchestrator", "nightly")}

    with pytest.raises(HostAgentError, match=r"no\$tes \(of reader\) is not a folder"):
        knowledge_mounts.check(settings)
    assert knowledge_mounts.write(config(tmp_path)) == []


def test_compose_last_lines_are_joined_to_one_line():
    assert last_lines("one\n\ntwo\nthree\nfour\n") == "two; three; four"
    assert last_lines("") == "it printed nothing"
