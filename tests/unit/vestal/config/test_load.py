"""Configuration: every mistake is one sentence that names the place, the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from vestal.config import ConfigError, canonical, load, units


def loaded(tmp_path: Path, text: str | None = None, **env: str):
    if text is not None:
        (tmp_path / "vestal.yaml").write_text(text)
    return load({"HOME": str(tmp_path), **env}, tmp_path)


def complaint(tmp_path: Path, text: str | None = None, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, **env)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("mlx:\n  prot: 1\n", 2, ["unknown key mlx.prot", "did you mean port?"]),
        ("\nmlxx:\n  port: 1\n", 2, ["unknown key mlxx", "did you mean mlx?"]),
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
        ("orchestrator:\n  mode: dcker\n", 2, ["docker", "native"]),
        ("orchestrator:\n  mem_limit: 1m\n", 2, ["too small"]),
        ("orchestrator:\n  workers: 2\n", 1, ["workers", "set `database_url`"]),
        ("orchestrator:\n  knowledge: 7\n", 2, ["orchestrator.knowledge", '"7"', "section"]),
        ("orchestrator:\n  knowledge: {}\n", 2, ["orchestrator.knowledge", "at least 1"]),
        ("orchestrator:\n  knowledge:\n    a/b: notes\n", 3, ["knowledge.a/b", "letters, digits"]),
        ("orchestrator:\n  knowledge:\n    ab: no,tes\n", 3, ["knowledge.ab", "no comma"]),
    ],
)
def test_bad_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, words: list[str]):
    sentence = complaint(tmp_path, text)
    assert sentence.startswith(f"{tmp_path / 'vestal.yaml'}:{line}: ")
    for word in words:
        assert word in sentence


def test_several_faults_are_all_told(tmp_path: Path):
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
def test_bad_variable_is_named(tmp_path: Path, name: str, value: str, words: list[str]):
    sentence = complaint(tmp_path, **{name: value})
    for word in words:
        assert word in sentence


def test_two_services_on_one_port_are_refused(tmp_path: Path):
    assert "both 11435" in complaint(tmp_path, "agent:\n  port: 11435\n")


def test_server_open_to_the_network_needs_a_key(tmp_path: Path):
    assert "mlx.api_key" in complaint(tmp_path, "mlx:\n  bind: [0.0.0.0]\n")
    assert loaded(tmp_path, "mlx:\n  bind: [0.0.0.0]\n  api_key: secret\n").mlx.bind == ["0.0.0.0"]


def test_environment_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path):
    config = loaded(tmp_path, "mlx:\n  port: 1000\n  max_running: 7\n", VESTAL_MLX_PORT="2000")
    assert (config.mlx.port, config.mlx.max_running, config.mlx.max_queued) == (2000, 7, 64)
    assert config.file == tmp_path / "vestal.yaml"


def test_names_of_the_requirements_work_as_they_stand(tmp_path: Path):
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


def test_empty_section_means_defaults(tmp_path: Path):
    assert loaded(tmp_path, "mlx:\nagent: {}\n").mlx.port == 11435


def test_models_given_are_added_to_the_built_in_ones_and_replace_them_by_any_spelling(tmp_path: Path):
    config = loaded(
        tmp_path, "models:\n  all-minilm:latest: {source: 'path:/m'}\n  new: {source: 'hf:a/b'}\n"
    )
    assert set(config.models) == {"smollm2:135m", "all-minilm:latest", "new"}
    source = config.model_source("all-minilm")
    assert source is not None
    assert source.source == "path:/m"
    assert config.model_source("unknown") is None


def test_kv_quantization_is_the_models_own_or_that_of_all(tmp_path: Path):
    assert loaded(tmp_path, "").kv_of("anything") is None
    text = (
        "mlx:\n  kv_bits: 8\nmodels:\n  small: {source: 'path:/m', kv_bits: none}\n"
        "  odd: {source: 'path:/m', kv_group_size: 32}\n  large: {source: 'path:/m', kv_bits: 4}\n"
    )
    config = loaded(tmp_path, text)
    names = ("other", "small:latest", "odd", "large")
    assert [config.kv_of(name) for name in names] == [(8, 64), None, (8, 32), (4, 64)]
    given = {"VESTAL_MLX__KV_BITS": "4", "VESTAL_MLX__KV_GROUP_SIZE": "128"}
    assert loaded(tmp_path, "", **given).kv_of("other") == (4, 128)


def test_every_section_of_the_file_is_in_force(tmp_path: Path):
    """`notifications` was read, checked, and left out."""
    given = loaded(tmp_path, "notifications:\n  desktop: false\n  webhook_url: http://localhost/x\n")
    assert not given.notifications.desktop
    assert given.notifications.webhook_url == "http://localhost/x"


def test_knowledge_is_one_folder_or_one_for_each_agent(tmp_path: Path):
    def folders(text: str, **env: str) -> dict[str, str]:
        return {
            name: str(path) for name, path in loaded(tmp_path, text, **env).orchestrator.knowledge.items()
        }

    assert folders("") == {"docs": "docs"}
    assert folders("orchestrator:\n  knowledge: ~/notes\n") == {"docs": "~/notes"}
    several = "orchestrator:\n  knowledge: {docs: docs, reader: /n}\n"
    assert folders(several) == {"docs": "docs", "reader": "/n"}
    assert folders(several, VESTAL_ORCHESTRATOR__KNOWLEDGE="{critic: c}") == {"critic": "c"}
    assert folders(several, VESTAL_ORCHESTRATOR__KNOWLEDGE="c") == {"docs": "c"}


def test_paths_follow_home_and_the_files_folder(tmp_path: Path):
    config = loaded(tmp_path, "mlx:\n  store: here\n", VESTAL_HOME=str(tmp_path / "other"))
    assert config.mlx.models_folder == tmp_path / "mlx-models"
    assert config.models_dir == tmp_path / "here"
    assert config.home.root == tmp_path / "other"
    assert loaded(tmp_path, "").models_dir == tmp_path / ".vestal" / "models"


def test_two_homes_have_labels_of_their_own(tmp_path: Path):
    assert loaded(tmp_path).home.label == "vestal"
    labels = {loaded(tmp_path, VESTAL_HOME=str(tmp_path / name)).home.label for name in ("a", "b")}
    assert len(labels) == 2
    assert all(label.startswith("vestal-") and len(label) == 15 for label in labels)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("90s", 90), ("300", 300), ("0", 0), ("1.5h", 5400)]
)
def test_duration_is_read_as_ollama_writes_it(text: str, seconds: float):
    assert units.seconds(text) == seconds


@pytest.mark.parametrize("text", ["-1", "-5m"])
def test_negative_duration_is_for_ever(text: str):
    assert units.seconds(text) == float("inf")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 * 1024**3), ("512m", 512 * 1024**2), ("1.5GiB", 3 * 1024**3 // 2), ("100", 100)],
)
def test_size_is_read_as_docker_writes_it(text: str, size: int):
    assert units.size_bytes(text) == size


@pytest.mark.parametrize(
    ("given", "full"),
    [("all-minilm", "all-minilm:latest"), ("a:b", "a:b"), ("host:5000/x/y", "host:5000/x/y:latest")],
)
def test_model_name_without_tag_is_latest(given: str, full: str):
    assert canonical(given) == full


def test_secrets_are_not_in_the_representation(tmp_path: Path):
    config = loaded(tmp_path, "mlx:\n  api_key: hunter2\n", VESTAL_DATABASE_URL="postgres://u:hunter3@h/d")
    assert "hunter" not in repr(config)


def test_secret_that_is_wrong_is_named_and_not_shown(tmp_path: Path):
    sentence = complaint(tmp_path, VESTAL_DATABASE_URL="mysql://u:hunter3@h/d")
    assert "postgresql://USER" in sentence
    assert "hunter" not in sentence
