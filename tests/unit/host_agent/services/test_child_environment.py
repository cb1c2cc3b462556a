"""The environment of the agent's children and containers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

import orchestrator.config
from host_agent.errors import HostAgentError
from host_agent.services import child_environment
from host_agent.services.docker.compose import Compose, last_lines
from host_agent.services.docker.time_zone import find_time_zone
from host_agent.services.orchestrator import knowledge_mounts
from vestal import tracing
from vestal.config import ConfigError, load


def config(tmp_path: Path, **env: str):
    return load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "v"), **env}, tmp_path)


def test_orchestrator_uses_host_docker_internal_in_a_container_and_loopback_outside_one(tmp_path: Path):
    settings = config(tmp_path, VESTAL_MLX_PORT="1234", VESTAL_AGENT_PORT="4321")
    inside = child_environment.orchestrator(settings, child_environment.HOST_FROM_CONTAINER)
    assert inside["MLX_API_URL"] == inside["MAC_LLM_URL"] == "http://host.docker.internal:1234"
    assert inside["RECOVERY_WEBHOOK_URL"] == "http://host.docker.internal:4321/recover"
    assert inside["OLLAMA_BASE_URL"] == "http://host.docker.internal:11434"
    native = child_environment.native_orchestrator(settings)
    assert native["MLX_API_URL"] == "http://127.0.0.1:1234"
    assert native["OLLAMA_BASE_URL"] == "http://127.0.0.1:11434"
    assert native["VESTAL_TOKEN_FILE"] == str(tmp_path / "v" / "token")


def test_configured_server_addresses_are_passed_to_the_orchestrator(tmp_path: Path):
    settings = config(
        tmp_path, MLX_API_URL="http://10.1.1.1:8000", RECOVERY_WEBHOOK_URL="http://localhost:1/recover"
    )
    environment = child_environment.orchestrator(settings, child_environment.HOST_FROM_CONTAINER)
    assert environment["MLX_API_URL"] == "http://10.1.1.1:8000"
    assert environment["RECOVERY_WEBHOOK_URL"] == "http://host.docker.internal:1/recover"


@pytest.mark.parametrize(
    ("env", "used"),
    [
        ({}, "http://127.0.0.1:11435"),
        ({"MAC_LLM_URL": "http://other-mac:11435"}, "http://other-mac:11435"),
        ({"MAC_LLM_URL": "http://other-mac:1", "MLX_API_URL": "http://mini:2"}, "http://mini:2"),
    ],
)
def test_orchestrator_uses_mlx_api_url_or_else_its_older_name_mac_llm_url(
    tmp_path: Path, env: dict[str, str], used: str
):
    """The older name once had no effect, because MLX_API_URL was always filled in."""
    given = child_environment.native_orchestrator(config(tmp_path, **env))
    assert orchestrator.config.load({**given, "VESTAL_TOKEN": "t"}).mlx_urls == (used,)
    composed = yaml.safe_load((child_environment.REPO / "docker-compose.yml").read_text())
    assert composed["x-environment"]["MLX_API_URL"].startswith("${MLX_API_URL-${MAC_LLM_URL:-http")


def test_native_orchestrator_takes_the_token_of_its_home_not_that_of_the_shell(tmp_path: Path):
    settings = config(tmp_path)
    settings.home.prepare()
    settings.home.token.write_text("of-the-home\n")
    environment = {"VESTAL_TOKEN": "of-the-shell", **child_environment.native_orchestrator(settings)}
    assert orchestrator.config.load(environment).token == "of-the-home"


def test_example_of_an_env_file_has_no_comment_after_an_empty_value():
    """Compose took the comment as the value: every search asked for a reranker named `# ranks what …`."""
    lines = (child_environment.REPO / "deploy" / "env.example").read_text().splitlines()
    assert [line for line in lines if re.search(r"=\s+#", line) and not line.startswith("#")] == []


def test_orchestrator_gets_an_empty_ollama_address_if_ollama_is_switched_off(tmp_path: Path):
    settings = config(tmp_path, VESTAL_OLLAMA__MANAGE="off")
    assert child_environment.orchestrator(settings, "127.0.0.1")["OLLAMA_BASE_URL"] == ""


def test_orchestrator_gets_addresses_of_other_hosts_after_the_address_of_this_machine(tmp_path: Path):
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


def test_docker_compose_gets_its_project_name_and_memory_limit_and_home_folder_from_the_settings(
    tmp_path: Path,
):
    settings = config(tmp_path, VESTAL_ORCHESTRATOR__MEM_LIMIT="512m")
    compose = Compose(settings)
    assert compose.project == settings.home.label
    environment = compose.environment()
    assert environment["VESTAL_ORCHESTRATOR_MEM_LIMIT"] == "512m"
    assert environment["VESTAL_HOME"] == str(settings.home.root)


def test_knowledge_folders_are_passed_to_children_on_the_host_and_mounted_in_containers(tmp_path: Path):
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


def test_last_lines_of_docker_compose_output_are_joined_to_one_line():
    assert last_lines("one\n\ntwo\nthree\nfour\n") == "two; three; four"
    assert last_lines("") == "it printed nothing"


@pytest.mark.parametrize(
    ("endpoint", "from_container"),
    [
        ("http://127.0.0.1:4318", "http://host.docker.internal:4318"),
        ("http://localhost", "http://host.docker.internal"),
        ("https://me:word@LOCALHOST:4318/v1", "https://me:word@host.docker.internal:4318/v1"),
        ("http://[::1]:4318/", "http://host.docker.internal:4318/"),
        ("http://localhost.example.com:4318", "http://localhost.example.com:4318"),
        ("https://collector:4318/127.0.0.1x", "https://collector:4318/127.0.0.1x"),
    ],
)
def test_trace_collector_on_this_machine_is_reached_by_host_name_from_a_container(
    endpoint: str, from_container: str
):
    variables = child_environment.container_traces({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
    assert (variables["VESTAL_TRACING"], variables["OTEL_EXPORTER_OTLP_ENDPOINT"]) == ("1", from_container)


@pytest.mark.parametrize(
    ("environment", "built_in"),
    [
        ({}, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "1"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, ""),
    ],
)
def test_container_image_is_built_with_opentelemetry_only_if_tracing_is_on(
    environment: dict[str, str], built_in: str
):
    assert child_environment.container_traces(environment)["VESTAL_TRACING"] == built_in


def test_compose_file_passes_every_tracing_variable_to_the_containers(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a")
    given = Compose(config(tmp_path)).environment()
    assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://host.docker.internal:4318"
    assert given["OTEL_TRACES_SAMPLER"] == "always_on"
    assert given["VESTAL_TRACE_ATTRIBUTES"] == "team=a", (
        "`docker` writes OTEL_RESOURCE_ATTRIBUTES about itself"
    )
    composed = yaml.safe_load((child_environment.REPO / "docker-compose.yml").read_text())
    passed_on = {name for name, value in composed["x-environment"].items() if value is None}
    assert passed_on >= {*tracing.ENDPOINTS, "OTEL_TRACES_SAMPLER", "OTEL_SDK_DISABLED"}
    assert composed["services"]["orchestrator"]["build"]["args"]["TRACING"] == "${VESTAL_TRACING:-}"


def test_compose_file_passes_every_setting_of_the_orchestrator_to_the_containers(tmp_path: Path):
    """A setting that docker-compose.yml does not name works on the host, and is lost in a container."""
    given = child_environment.orchestrator(config(tmp_path), child_environment.HOST_FROM_CONTAINER)
    composed = yaml.safe_load((child_environment.REPO / "docker-compose.yml").read_text())
    assert composed["x-environment"].keys() >= given.keys()


def test_setting_for_the_hour_of_nightly_work_reaches_the_nightly_service_on_the_host_and_in_a_container(
    tmp_path: Path,
):
    for name in ("NIGHTLY_HOUR", "VESTAL_ORCHESTRATOR__NIGHTLY_HOUR"):
        settings = config(tmp_path, **{name: "5"})
        assert child_environment.native_orchestrator(settings)["NIGHTLY_HOUR"] == "5"
        assert Compose(settings).environment()["NIGHTLY_HOUR"] == "5"
    composed = yaml.safe_load((child_environment.REPO / "docker-compose.yml").read_text())
    assert composed["services"]["nightly"]["environment"].keys() >= {"NIGHTLY_HOUR", "TZ"}
    with pytest.raises(ConfigError, match="nightly_hour"):
        config(tmp_path, NIGHTLY_HOUR="24")


@pytest.mark.parametrize(
    ("given", "link", "text", "zone"),
    [
        ("Asia/Tokyo", "/usr/share/zoneinfo/Europe/Berlin", "", "Asia/Tokyo"),
        ("", "/usr/share/zoneinfo/Europe/Berlin", "Asia/Tokyo", "Europe/Berlin"),
        (":/etc/localtime", "/var/db/timezone/zoneinfo/America/Los_Angeles", "", "America/Los_Angeles"),
        ("", "", "Europe/Berlin\n", "Europe/Berlin"),
        ("", "/somewhere/else", "", ""),
        ("", "", "", ""),
    ],
)
def test_containers_get_the_time_zone_of_this_machine(
    tmp_path: Path, given: str, link: str, text: str, zone: str
):
    """The night's work once began at 3 o'clock in UTC, whatever the zone of the machine."""
    local_time, name_file = tmp_path / "localtime", tmp_path / "timezone"
    if link:
        local_time.symlink_to(link)
    if text:
        name_file.write_text(text)
    assert find_time_zone({"TZ": given}, local_time, name_file) == zone


def test_compose_file_gets_the_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert Compose(config(tmp_path)).environment()["TZ"] == "Asia/Tokyo"


def test_orchestrator_gets_a_reranking_model_only_if_one_is_configured(tmp_path: Path):
    def passed_on(**env: str) -> str:
        return child_environment.orchestrator(config(tmp_path, **env), "127.0.0.1")["VESTAL_RERANK_MODEL"]

    assert passed_on() == ""
    assert passed_on(VESTAL_ORCHESTRATOR__RERANK_MODEL="bge-reranker") == "bge-reranker"
