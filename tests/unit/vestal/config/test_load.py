"""Loading the configuration: precedence, and one sentence for each mistake, with place, key and remedy."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from vestal.config import ConfigError, defaults_at_home, load


def loaded(tmp_path: Path, text: str | None = None, **env: str):
    if text is not None:
        (tmp_path / "vestal.yaml").write_text(text)
    return load({"HOME": str(tmp_path), **env}, tmp_path)


def only_problem(tmp_path: Path, text: str | None = None, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, **env)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("mlx:\n  prot: 1\n", 2, ["unknown key mlx.prot", "did you mean port?"]),
        ("\nmlxx:\n  port: 1\n", 2, ["unknown key mlxx", "did you mean mlx?"]),
        ("agent:\n  xyz: 1\n", 2, ["unknown key agent.xyz", "known keys: bind, monitor_interval_s, port"]),
        ("mlx:\n  port: abc\n", 2, ["mlx.port", '"abc"', "whole number"]),
        ("mlx:\n  port: 70000\n", 2, ["mlx.port", "65535"]),
        ("mlx:\n  port: true\n", 2, ["mlx.port", "whole number"]),
        ("mlx:\n  keep_alive: 5x\n", 2, ["mlx.keep_alive", "not a duration"]),
        ("mlx:\n  memory_limit: half\n", 2, ["mlx.memory_limit", "not a size"]),
        ("mlx:\n  memory_limit: 0\n", 2, ["mlx.memory_limit", "such as 20g"]),
        ("mlx:\n  kv_bits: 6\n", 2, ["mlx.kv_bits", '"6"', "'none', 8 or 4"]),
        ("mlx:\n  kv_group_size: 48\n", 2, ["mlx.kv_group_size", "32, 64 or 128"]),
        ("mlx: [1]\n", 1, ["mlx is a list"]),
        ("mlx:\n  a: [\n", 3, ["not YAML"]),
        ("- 1\n", 1, ["sections"]),
        ("mlx:\n  port: 1\n  port: 2\n", 3, ["given twice", "line 2"]),
        ("models:\n  x:\n    source: ftp:x\n", 3, ["not a source"]),
        ("models:\n  x:\n    source: pypi:x==1#sha256=abc\n", 3, ["sha256= and the 64 hexadecimal digits"]),
        ("models:\n  x:\n    source: pypi:x==1\n    sha256: abc\n", 4, ["models.x.sha256", "abc"]),
        ("orchestrator:\n  mode: dcker\n", 2, ["docker", "native"]),
        ("orchestrator:\n  mem_limit: 1m\n", 2, ["too small"]),
        ("orchestrator:\n  workers: 2\n", 2, ["workers", "set `database_url`"]),
        ("orchestrator:\n  knowledge: 7\n", 2, ["orchestrator.knowledge", '"7"', "section"]),
        ("orchestrator:\n  knowledge: {}\n", 2, ["orchestrator.knowledge", "at least 1"]),
        ("orchestrator:\n  knowledge:\n    a/b: notes\n", 3, ["knowledge.a/b", "letters, digits"]),
        (f"orchestrator:\n  knowledge:\n    {'a' * 65}: notes\n", 3, ["knowledge.aaaa", "letters, digits"]),
        ("orchestrator:\n  knowledge:\n    ab: no,tes\n", 3, ["knowledge.ab", "no comma"]),
    ],
)
def test_mistake_in_the_configuration_file_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, words: list[str]
):
    problem = only_problem(tmp_path, text)
    assert problem.startswith(f"{tmp_path / 'vestal.yaml'}:{line}: ")
    for word in words:
        assert word in problem


def test_every_mistake_in_the_configuration_file_is_reported(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "mlx:\n  prot: 1\nagent:\n  port: x\n")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VESTAL_MLX__PROT", "1", ["VESTAL_MLX__PROT", "did you mean VESTAL_MLX__PORT?"]),
        ("VESTAL_MLX_PORT", "x", ["VESTAL_MLX_PORT", "whole number"]),
        ("VESTAL_CONFIG", "nowhere.yaml", ["VESTAL_CONFIG", "not there"]),
    ],
)
def test_mistake_in_the_environment_is_reported_with_its_variable(
    tmp_path: Path, name: str, value: str, words: list[str]
):
    problem = only_problem(tmp_path, **{name: value})
    for word in words:
        assert word in problem


@pytest.mark.parametrize(
    ("text", "line", "variable", "value", "words"),
    [
        ("mlx:\n  port: abc\n", 2, "VESTAL_MLX_PORT", "21535", ["mlx.port", '"abc"', "whole number"]),
        ("mlx:\n  port: 70000\n", 2, "VESTAL_MLX__PORT", "21535", ["mlx.port", "65535"]),
        ("mlx:\n  bind: [localhost, []]\n", 2, "VESTAL_MLX__BIND", "::1", ["mlx.bind.1 is a list"]),
        ("models:\n  X: {source: ftp:x}\n", 2, "VESTAL_MODELS__X__SOURCE", "hf:x/y", ["not a source"]),
        (
            "models:\n  x: {source: hf:x/y, adapters: {a: x/a}}\n",
            2,
            "VESTAL_MODELS__X__ADAPTERS",
            "{a: hf:x/a}",
            ["adapters: a names", "not the source of an adapter"],
        ),
        ("models:\n  x: {source: hf:x/y, size: 1}\n", 2, "VESTAL_MODELS__X__DRAFT", "a", ["models.x.size"]),
        (
            "orchestrator:\n  knowledge: {a/b: notes}\n",
            2,
            "VESTAL_ORCHESTRATOR__KNOWLEDGE",
            "notes",
            ["knowledge.a/b", "letters, digits"],
        ),
    ],
)
def test_mistake_in_the_configuration_file_is_reported_although_a_variable_replaces_the_value(
    tmp_path: Path, text: str, line: int, variable: str, value: str, words: list[str]
):
    """`vestal agent --check` accepted `port: abc` in silence while VESTAL_MLX_PORT was set. The next start
    without that variable failed.
    """
    problem = only_problem(tmp_path, text, **{variable: value})
    assert problem.startswith(f"{tmp_path / 'vestal.yaml'}:{line}: ")
    for word in words:
        assert word in problem


def test_mistakes_in_a_variable_and_in_the_value_that_it_replaces_are_each_reported_once(tmp_path: Path):
    text = "mlx:\n  port: abc\n  prot: 1\nagent:\n  port: 70000\n"
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, VESTAL_MLX_PORT="x", VESTAL_ORCHESTRATOR_PORT="7")
    file = tmp_path / "vestal.yaml"
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        "VESTAL_MLX_PORT (environment)",
        f"{file}:3",
        f"{file}:5",
        f"{file}:2",
    ]


def test_mistake_in_a_secret_that_a_variable_replaces_is_reported_without_its_value(tmp_path: Path):
    text = "orchestrator:\n  database_url: mysql://u:hunter3@h/d\n"
    problem = only_problem(tmp_path, text, VESTAL_DATABASE_URL="postgresql://u:hunter4@h/d")
    assert problem.startswith(f"{tmp_path / 'vestal.yaml'}:2: ")
    assert "hunter" not in problem


@pytest.mark.parametrize(
    ("text", "variable", "value"),
    [
        ("agent: {port: 4000}\nmlx: {port: 4000}\n", "VESTAL_MLX_PORT", "4001"),  # two equal ports
        ("agent: {port: 11435}\n", "VESTAL_MLX_PORT", "4001"),  # the default port of another service
        ("mlx: {bind: [0.0.0.0]}\n", "VESTAL_MLX__API_KEY", "k" * 16),
        ("mlx: {bind: [0.0.0.0]}\n", "VESTAL_MLX__BIND", "127.0.0.1"),
        ("orchestrator: {workers: 2}\n", "VESTAL_DATABASE_URL", "postgresql://u:p@h/d"),
        ("models: {x: {source: hf:x/y, draft: x}}\n", "VESTAL_MODELS__X__DRAFT", "smollm2:135m"),
        ("models: {x: {context_tokens: 64}}\n", "VESTAL_MODELS__X__SOURCE", "hf:x/y"),  # no source
        ("models: {x: {source: }}\n", "VESTAL_MODELS__X__SOURCE", "hf:x/y"),
        ("mlx: {port: }\n", "VESTAL_MLX_PORT", "4001"),
        ("mlx:\n", "VESTAL_MLX_PORT", "4001"),
    ],
)
def test_configuration_file_that_only_a_variable_makes_valid_is_accepted(
    tmp_path: Path, text: str, variable: str, value: str
):
    loaded(tmp_path, text, **{variable: value})
    with pytest.raises(ConfigError) if text != "mlx:\n" else nullcontext():
        loaded(tmp_path)


def test_configuration_with_one_port_for_two_services_is_refused(tmp_path: Path):
    assert "both 11435" in only_problem(tmp_path, "agent:\n  port: 11435\n")


def test_mlx_server_open_to_the_network_requires_an_api_key(tmp_path: Path):
    assert "mlx.api_key" in only_problem(tmp_path, "mlx:\n  bind: [0.0.0.0]\n")
    assert loaded(tmp_path, "mlx:\n  bind: [0.0.0.0]\n  api_key: secret\n").mlx.bind == ["0.0.0.0"]


def test_configured_peers_must_be_base_urls_and_their_key_must_be_long(tmp_path: Path):
    config = loaded(tmp_path, "mlx:\n  peers: [http://other-mac:11435/]\n  peer_key: sixteen-letters-x\n")
    assert config.mlx.peers == ["http://other-mac:11435"]
    for wrong in ("other-mac:11435", "http://u:p@other-mac", "http://other-mac/v1", "ftp://x", "http://a b"):
        assert "http://HOST:PORT" in only_problem(tmp_path, f"mlx:\n  peers: ['{wrong}']\n")
    for wrong in ("short-hunter", "hunter with spaces in it"):
        problem = only_problem(tmp_path, f"mlx:\n  peer_key: {wrong}\n")
        assert "16 or more" in problem and "hunter" not in problem


def test_environment_overrides_the_configuration_file_which_overrides_the_defaults(tmp_path: Path):
    config = loaded(tmp_path, "mlx:\n  port: 1000\n  max_running: 7\n", VESTAL_MLX_PORT="2000")
    assert (config.mlx.port, config.mlx.max_running, config.mlx.max_queued) == (2000, 7, 64)
    assert config.file == tmp_path / "vestal.yaml"


def test_setting_is_set_by_its_short_environment_variable_or_by_the_one_named_after_its_section(
    tmp_path: Path,
):
    config = loaded(
        tmp_path,
        MLX_PRELOAD_MODELS="one, two:3b",
        SMART_WORKER_MAX_CONCURRENT="4",
        ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="7.5",
        OLLAMA_BASE_URL="http://10.0.0.1:11434",
        VESTAL_AGENT__RECOVERY_INTERVAL_S="9",
        VESTAL_MLX__KEEP_ALIVE="",
    )
    assert config.mlx.preload == ["one", "two:3b"]
    assert config.orchestrator.max_concurrent == 4
    assert config.orchestrator.health_monitor_interval_s == 7.5
    assert config.ollama.base_url == "http://10.0.0.1:11434"
    assert config.agent.recovery_interval_s == 9
    assert config.mlx.keep_alive == "5m"


def test_empty_section_of_the_configuration_file_has_its_defaults(tmp_path: Path):
    assert loaded(tmp_path, "mlx:\nagent: {}\n").mlx.port == 11435


def test_notifications_section_of_the_configuration_file_is_in_the_loaded_configuration(tmp_path: Path):
    """The section `notifications` was once read and checked, but missing from the result."""
    config = loaded(tmp_path, "notifications:\n  desktop: false\n  webhook_url: http://localhost/x\n")
    assert not config.notifications.desktop
    assert config.notifications.webhook_url == "http://localhost/x"


def test_relative_paths_are_resolved_from_the_configuration_files_folder(tmp_path: Path):
    config = loaded(tmp_path, "mlx:\n  store: here\n", VESTAL_HOME=str(tmp_path / "other"))
    assert config.mlx.models_folder == tmp_path / "mlx-models"
    assert config.models_dir == tmp_path / "here"
    assert config.home.root == tmp_path / "other"
    assert loaded(tmp_path, "").models_dir == tmp_path / ".vestal" / "models"


def test_different_vestal_homes_have_different_labels(tmp_path: Path):
    assert loaded(tmp_path).home.label == "vestal"
    labels = {loaded(tmp_path, VESTAL_HOME=str(tmp_path / name)).home.label for name in ("a", "b")}
    assert len(labels) == 2
    assert all(label.startswith("vestal-") and len(label) == 15 for label in labels)


def test_secrets_are_not_in_the_representation_of_the_configuration(tmp_path: Path):
    keys = "mlx:\n  api_key: hunter2\n  peer_key: hunter2hunter2hunter2\n"
    config = loaded(tmp_path, keys, VESTAL_DATABASE_URL="postgres://u:hunter3@h/d")
    assert "hunter" not in repr(config)


def test_mistake_in_a_secret_setting_is_reported_without_its_value(tmp_path: Path):
    problem = only_problem(tmp_path, VESTAL_DATABASE_URL="mysql://u:hunter3@h/d")
    assert "postgresql://USER" in problem
    assert "hunter" not in problem


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("1.2.3.4", "http://1.2.3.4:11434"),
        (":1234", "http://127.0.0.1:1234"),
        ("1.2.3.4:1234", "http://1.2.3.4:1234"),
        ("example.com", "http://example.com:11434"),
        ("example.com:1234", "http://example.com:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:41434", "http://127.0.0.1:41434"),
        ("[::]:41434", "http://[::1]:41434"),
        ("[::1]", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:1337", "http://[::1]:1337"),
        (":66000", "http://127.0.0.1:11434"),
        (":-1", "http://127.0.0.1:11434"),
        (":0", "http://127.0.0.1:11434"),
        (' " 1.2.3.4 " ', "http://1.2.3.4:11434"),
        ("http://1.2.3.4", "http://1.2.3.4:80"),
        ("http://1.2.3.4:4321", "http://1.2.3.4:4321"),
        ("https://1.2.3.4", "https://1.2.3.4:443"),
        ("https://example.com/ollama/", "https://example.com:443/ollama"),
        ("example.com/ollama", "http://example.com:11434/ollama"),
        ("ollama.com", "https://ollama.com:443"),
        ("", "http://127.0.0.1:11434"),
    ],
)
def test_ollama_base_url_defaults_to_the_ollama_host_variable_in_every_form_that_ollama_accepts(
    tmp_path: Path, value: str, url: str
):
    """OLLAMA_HOST was once not read, so a second `ollama serve` was started beside the user's own."""
    assert loaded(tmp_path, OLLAMA_HOST=value).ollama.base_url == url


def test_ollama_host_variable_is_overridden_by_the_file_and_by_vestals_variables(tmp_path: Path):
    there = {"OLLAMA_HOST": "127.0.0.1:41434"}
    given = "http://127.0.0.1:41436"
    assert loaded(tmp_path, OLLAMA_BASE_URL=given, **there).ollama.base_url == given
    assert loaded(tmp_path, VESTAL_OLLAMA__BASE_URL=given, **there).ollama.base_url == given
    assert loaded(tmp_path, f"ollama:\n  base_url: {given}\n", **there).ollama.base_url == given
    assert loaded(tmp_path, "ollama:\n  manage: watch\n", **there).ollama.base_url == "http://127.0.0.1:41434"


def test_ollama_host_variable_that_names_the_mlx_server_is_ignored(tmp_path: Path):
    """The guide tells programs of Ollama to use the MLX server by OLLAMA_HOST=127.0.0.1:11435."""
    assert loaded(tmp_path, OLLAMA_HOST="127.0.0.1:11435").ollama.base_url == "http://127.0.0.1:11434"
    other = loaded(tmp_path, OLLAMA_HOST="0.0.0.0:2000", VESTAL_MLX_PORT="2000")
    assert other.ollama.base_url == "http://127.0.0.1:11434"


@pytest.mark.parametrize("value", ["foo bar", "ftp://1.2.3.4", "http://a,b", "user@host", "a:b:c"])
def test_ollama_host_variable_that_is_not_an_address_is_refused_with_the_remedy(tmp_path: Path, value: str):
    problem = only_problem(tmp_path, OLLAMA_HOST=value)
    assert "OLLAMA_HOST (environment) is " in problem
    assert "set ollama.base_url" in problem


@pytest.mark.parametrize(
    ("value", "origins"),
    [
        ("https://chat.example.com", ["https://chat.example.com"]),
        (
            "chrome-extension://*,moz-extension://*,  safari-web-extension://*",
            ["chrome-extension://*", "moz-extension://*", "safari-web-extension://*"],
        ),
        ("'http://Chat.Example.com:80/'", ["http://chat.example.com"]),
        ("https://a.example:443,https://a.example:8443", ["https://a.example", "https://a.example:8443"]),
        ("http://192.168.1.*:*", ["http://192.168.1.*:*"]),
        ("app://", ["app://"]),
        ("null", ["null"]),
        ("*", ["*"]),
        ("", []),
    ],
)
def test_ollama_origins_variable_sets_the_admitted_origins_of_the_mlx_server(
    tmp_path: Path, value: str, origins: list[str]
):
    """Users who admitted a page to Ollama have set this variable, in quotes or with a slash at the end."""
    assert loaded(tmp_path, OLLAMA_ORIGINS=value).mlx.origins == origins
    assert loaded(tmp_path, VESTAL_MLX__ORIGINS=value, OLLAMA_ORIGINS="*").mlx.origins == (origins or ["*"])


@pytest.mark.parametrize(
    "value", ["chat.example.com", "https://a.example/path", "https://user@a.example", "a b"]
)
def test_invalid_origin_in_the_settings_is_refused_with_the_remedy(tmp_path: Path, value: str):
    problem = only_problem(tmp_path, OLLAMA_ORIGINS=value)
    assert "OLLAMA_ORIGINS" in problem
    assert "such as https://chat.example.com, or *" in problem


def test_configuration_is_loaded_although_the_working_folder_was_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Earlier, no service could be restarted once the checkout was deleted in which `vestal up` had run, even
    if another one was there: each process ended with FileNotFoundError.
    """
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "vestal.yaml").write_text("mlx: {port: 4321}\n")
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    (tmp_path / "checkout").rmdir()
    env = {"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "home")}
    assert load(env).mlx.port == 4321
    assert defaults_at_home(env).home.root == tmp_path / "home"
    assert Path.cwd() == Path("/"), "transformers cannot be imported in a folder that was deleted"
