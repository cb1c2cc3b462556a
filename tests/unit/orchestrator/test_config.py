from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.agents import agents
from orchestrator.config import load
from orchestrator.errors import ConfigError
from orchestrator.llm.hosts import named

BASE = {"VESTAL_TOKEN": "t", "VESTAL_HOME": "/data"}


def test_orchestrator_config_without_optional_settings_uses_the_defaults():
    config = load(BASE)
    assert config.database == Path("/data/orchestrator.db")
    assert config.port == 8088
    assert config.mlx_urls == ("http://127.0.0.1:11435",)
    assert config.webhook_url == "http://host.docker.internal:9099/recover"
    assert config.cycle_interval_s == config.monitor_interval_s == 300


def test_backend_url_loses_its_path_and_an_empty_url_disables_the_backend():
    config = load({**BASE, "MLX_API_URL": "localhost:11435/v1/", "OLLAMA_BASE_URL": ""})
    assert config.mlx_urls == ("http://localhost:11435",)
    assert config.ollama_urls == ()


def test_backend_urls_setting_that_names_a_host_twice_yields_its_url_once():
    config = load({**BASE, "MLX_API_URL": "a:1, http://b:2/,, a:1/v1", "OLLAMA_BASE_URL": " , "})
    assert config.mlx_urls == ("http://a:1", "http://b:2")
    assert config.ollama_urls == ()
    others = load({**BASE, "OLLAMA_BASE_URL": ",b:2"}).ollama_urls
    assert others == ("", "http://b:2")  # the empty first URL is this machine's
    assert named((), others) == {"mlx": "", "ollama": "", "ollama-2": "http://b:2"}


def test_mac_llm_url_is_used_if_mlx_api_url_is_missing():
    assert load({**BASE, "MAC_LLM_URL": "http://h:1"}).mlx_urls == ("http://h:1",)


def test_loopback_url_in_a_container_gets_the_configured_address_of_the_container_host():
    config = load(
        {
            **BASE,
            "VESTAL_HOST_GATEWAY": "host.docker.internal",
            "OLLAMA_BASE_URL": "http://localhost:11434",
            "MLX_API_URL": "http://10.0.0.7:5",
            "RECOVERY_WEBHOOK_URL": "http://127.0.0.1:9099/recover",
        }
    )
    assert config.ollama_urls == ("http://host.docker.internal:11434",)
    assert config.mlx_urls == ("http://10.0.0.7:5",)
    assert config.webhook_url == "http://host.docker.internal:9099/recover"


def test_orchestrator_config_with_a_token_file_reads_the_token_from_it(tmp_path: Path):
    path = tmp_path / "token"
    path.write_text("from-file\n")
    assert load({"VESTAL_TOKEN_FILE": str(path)}).token == "from-file"


def test_knowledge_folders_setting_is_read_into_a_folder_for_each_name():
    config = load({**BASE, "VESTAL_KNOWLEDGE": "docs=/a/b, more=/c"})
    assert config.knowledge_folders == {"docs": Path("/a/b"), "more": Path("/c")}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VESTAL_ORCHESTRATOR_PORT", "80880"),
        ("ORCHESTRATOR_HEALTH_MONITOR_INTERVAL", "often"),
        ("ORCHESTRATOR_CYCLE_INTERVAL", "nan"),
        ("SMART_WORKER_MAX_CONCURRENT", "0"),
        ("NIGHTLY_HOUR", "24"),
        ("OLLAMA_BASE_URL", "ftp://x"),
        ("MLX_API_URL", "http://x:99999"),
        ("MLX_API_URL", "http://a:1,http://x:99999"),
        ("MLX_API_URL", "http://[::1:11435"),
        ("RECOVERY_WEBHOOK_URL", "http://host..name:9099/recover"),
        ("VESTAL_HOME", "~nosuchuser/v"),
        ("VESTAL_KNOWLEDGE_DIR", "~nosuchuser/k"),
        ("VESTAL_KNOWLEDGE", "docs"),
        ("VESTAL_KNOWLEDGE", "docs=~nosuchuser/k"),
        ("VESTAL_AGENTS_FILE", "~nosuchuser/agents.yaml"),
        ("VESTAL_TOKEN", ""),
        ("VESTAL_AGENTS_FILE", "/none"),
        ("VESTAL_AGENTS_FILE", "/" + "n" * 5000),
        ("VESTAL_DATABASE_URL", "postgresql://x"),
        ("VESTAL_DATABASE_URL", "postgresql://u:s3cret@[::1:5432/d"),
        ("VESTAL_DATABASE_URL", "postgresql://u:s3cret@host:99999/d"),
        ("VESTAL_DATABASE_URL", "postgresql://u:s3c@ret@host/d"),
        ("VESTAL_DATABASE_URL", "postgresql://u:s3c%ret@host/d"),
        ("VESTAL_DATABASE_URL", "postgresql://u:s3c#ret@host/d"),
        ("VESTAL_DATABASE_URL", "postgresql://u:s3c/ret@host/d"),
        ("VESTAL_DATABASE_URL", "postgresql://u:12/s3c@host/d"),
    ],
)
def test_invalid_orchestrator_setting_is_named_in_one_sentence(name: str, value: str):
    with pytest.raises(ConfigError, match=name) as caught:
        load({**BASE, name: value})
    assert "\n" not in caught.value.message
    assert "s3c" not in caught.value.message


def test_database_url_keeps_an_escaped_password_an_ipv6_host_and_options():
    url = "postgresql://u:p%40ss%2F@[::1]:5432/d?sslmode=require"
    assert load({**BASE, "VESTAL_DATABASE_URL": url}).database_url == url


def test_database_url_in_a_container_has_only_its_loopback_host_replaced():
    given = "postgres://u:p%40ss@localhost:5433/db?sslmode=require"
    assert load({**BASE, "VESTAL_DATABASE_URL": given}).database_url == (
        "postgresql://u:p%40ss@localhost:5433/db?sslmode=require"
    )
    inside = {**BASE, "VESTAL_DATABASE_URL": given, "VESTAL_HOST_GATEWAY": "host.docker.internal"}
    assert load(inside).database_url == ("postgresql://u:p%40ss@host.docker.internal:5433/db?sslmode=require")


@pytest.mark.parametrize("bad", ["mysql://u:secret@h/d", "postgresql://u:secret@h", "u:secret@h:x/d"])
def test_invalid_database_url_is_reported_without_its_password(bad: str):
    with pytest.raises(ConfigError, match="VESTAL_DATABASE_URL") as caught:
        load({**BASE, "VESTAL_DATABASE_URL": bad})
    assert "secret" not in caught.value.message


def test_without_an_agents_file_the_only_agent_is_the_lead_with_every_knowledge_folder():
    lead = agents.load(None, "m")["lead"]
    assert (lead.model, lead.folders) == ("m", None)


def test_agent_gets_the_default_for_each_of_model_and_folders_and_search_that_its_entry_does_not_set(
    tmp_path: Path,
):
    path = tmp_path / "agents.yaml"
    path.write_text("agents:\n  reader: {role: a reader, prompt: Read., model: big}\n  other: {prompt: O.}\n")
    crew = agents.load(path, "small")
    assert set(crew) == {"lead", "reader", "other"}
    assert (crew["reader"].model, crew["reader"].folders) == ("big", ("reader",))
    assert crew["other"].model == "small"
    assert crew["other"].searches


def test_agent_without_the_knowledge_tool_may_not_search(tmp_path: Path):
    path = tmp_path / "agents.yaml"
    path.write_text("agents: {thinker: {prompt: Think., tools: []}}")
    assert not agents.load(path, "m")["thinker"].searches


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("agents: [", 1, "this is not YAML"),
        ("a: : b", 1, "this is not YAML"),
        ("agents:\n  a:\n    prompt: x\n   role: y\n", 4, "this is not YAML"),
        ("agents:\n  a: {prompt: x}\n\tb: 1\n", 3, "this is not YAML"),
        ("agents:\n  a: {prompt: \x07}\n", 2, "this is not YAML"),
        ("agents: [1]", 1, "there must be a mapping `agents:`"),
        ("# a comment\nagents:\n", 2, "there must be a mapping `agents:`"),
        ("", 1, "there must be a mapping `agents:`"),
        ("- 1\n", 1, "there must be a mapping `agents:`"),
        ("agents:\n  a: {}\n", 2, "agents.a.prompt is missing"),
        ("agents:\n  a:\n    prompt: ' '\n", 3, "agents.a.prompt is missing"),
        ("agents:\n  a:\n    prompt: [x]\n", 3, "agents.a.prompt must be text"),
        ("agents:\n  a:\n    prompt: x\n    tools: [shell]\n", 4, "agents.a.tools has 'shell'"),
        ("agents:\n  a:\n    prompt: x\n    tools: knowledge\n", 4, "agents.a.tools must be a list of names"),
        ("agents:\n  a:\n    prompt: x\n    tool: y\n", 4, "agents.a.tool is an unknown key"),
        ("agents:\n  a: {prompt: x, knowledge: docs}\n", 2, "agents.a.knowledge must be a list of names"),
        ("agents:\n  b: {prompt: x}\n  a: 1\n", 3, "agents.a must be a mapping"),
        ("agents:\n  a: {prompt: x}\n  a: {prompt: y}\n", 3, "agents.a is given twice (first on line 2)"),
        ("agents: " + "[" * 5000, 1, "this is not YAML"),
    ],
)
def test_malformed_agents_file_is_reported_with_its_line_in_one_sentence(
    tmp_path: Path, text: str, line: int, words: str
):
    """A broken agents.yaml gave a YAML error over several lines, or a key without its line."""
    path = tmp_path / "agents.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        agents.load(path, "m")
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_agents_file_that_is_not_readable_text_is_reported(tmp_path: Path):
    path = tmp_path / "agents.yaml"
    path.write_bytes(b"agents: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        agents.load(path, "m")
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        agents.load(path, "m")


def test_agents_file_in_the_deploy_folder_is_valid(repo: Path):
    assert "lead" in agents.load(repo / "deploy" / "agents.yaml", "m")


def test_rerank_model_setting_is_empty_by_default():
    assert load(BASE).rerank_model == load({**BASE, "VESTAL_RERANK_MODEL": " "}).rerank_model == ""
    assert load({**BASE, "VESTAL_RERANK_MODEL": "bge-reranker"}).rerank_model == "bge-reranker"
