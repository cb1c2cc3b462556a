"""Values in the settings that cannot be converted, and addresses that no client could use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vestal.config import ConfigError, load
from vestal.config.environment import all_keys
from vestal.config.settings import Settings


def loaded(tmp_path: Path, text: str = "", **env: str):
    (tmp_path / "vestal.yaml").write_text(text)
    return load({"HOME": str(tmp_path), **env}, tmp_path)


def only_problem(tmp_path: Path, text: str = "", **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, **env)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


DIGITS = "9" * 5000


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("orchestrator:\n  chat_model: 2024-13-01\n", 2, ['"2024-13-01" is not a valid timestamp', "quotes"]),
        ("mlx:\n  port: !!int abc\n", 2, ['"abc" is not a valid int', "quotes"]),
        ("mlx:\n  port: !!bool abc\n", 2, ['"abc" is not a valid bool']),
        ("mlx:\n  port: !!timestamp abc\n", 2, ['"abc" is not a valid timestamp']),
        (f"mlx:\n  port: {DIGITS}\n", 2, ['99" is not a valid int']),
        (f"mlx:\n  port: 0x{DIGITS}\n", 2, ['99" is not a valid int']),
        ("mlx: &a\n  port: *a\n", 1, ["alias", "inside that section"]),
        ("mlx: &a [1, *a]\n", 1, ["alias", "inside that section"]),
        ("mlx:\n  origins: " + "[" * 30 + "]" * 30 + "\n", 2, ["too many levels"]),
        (
            "a: &a [1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{now}: &{now} [{','.join([f'*{before}'] * 9)}]\n"
                for before, now in zip("abcdef", "bcdefg", strict=True)
            ),
            1,
            ["too many levels or values"],
        ),
        (f"mlx:\n  prompt_cache_ram: '{'9' * 400}'\n", 2, ["mlx.prompt_cache_ram", "such as"]),
        ("mlx:\n  memory_limit: 9999999999t\n", 2, ["mlx.memory_limit", "more than any machine has"]),
    ],
)
def test_value_that_cannot_be_converted_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, words: list[str]
):
    """Such values once ended every program in a traceback of PyYAML, without the line."""
    problem = only_problem(tmp_path, text)
    assert problem.startswith(f"{tmp_path / 'vestal.yaml'}:{line}: ")
    assert all(word in problem for word in words), problem


def test_configuration_file_nested_beyond_the_recursion_limit_is_refused(tmp_path: Path):
    assert "too many levels" in only_problem(tmp_path, "mlx: " + "[\n " * 1000)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("VESTAL_MLX__PRELOAD", "[2024-13-01]", "mlx.preload"),
        ("VESTAL_MLX__PRELOAD", "[\n" * 1000, "mlx.preload"),
        ("VESTAL_MLX__PRELOAD", "[&a [*a]]", "mlx.preload"),
        ("VESTAL_ORCHESTRATOR__KNOWLEDGE", "{a: 2024-13-01}", "give a folder, or a folder for each agent"),
        ("VESTAL_MLX__KV_BITS", DIGITS, "8 or 4"),
        ("VESTAL_MLX_PORT", DIGITS, "mlx.port"),
    ],
)
def test_variable_whose_value_cannot_be_converted_is_reported_with_its_name(
    tmp_path: Path, name: str, value: str, words: str
):
    problem = only_problem(tmp_path, **{name: value})
    assert problem.startswith(f"{name} (environment): ")
    assert words in problem


MAY_BE_OFF = {
    ("supervision", "settle_after_kill_s"),
    ("mlx", "drain_s"),
    ("mlx", "recycle_after_s"),
    ("mlx", "keep_answers_s"),
}


@pytest.mark.parametrize("word", ["true", "no"])
def test_setting_that_is_no_switch_refuses_true_and_false(tmp_path: Path, word: str):
    """`agent.recovery_interval_s: true` was once one second."""
    choices = {("ollama", "manage"), ("orchestrator", "mode")}  # these have the choice `off`
    if word == "no":
        choices |= MAY_BE_OFF
    sections: dict[str, list[str]] = {}
    for section, key in all_keys():
        is_switch = isinstance(getattr(getattr(Settings(), section), key), bool)
        if not is_switch and (section, key) not in choices:
            sections.setdefault(section, []).append(key)
    text = "".join(
        f"{name}:\n" + "".join(f"  {key}: {word}\n" for key in keys) for name, keys in sections.items()
    )
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    for name, keys in sections.items():
        for key in keys:
            problem = next((each for each in caught.value.problems if f" {name}.{key} " in each), "")
            assert problem and "class" not in problem, key
            assert not key.endswith("_s") or "give a number of seconds" in problem


@pytest.mark.parametrize(("section", "key"), sorted(MAY_BE_OFF))
def test_number_of_seconds_that_may_be_0_may_be_written_as_off(tmp_path: Path, section: str, key: str):
    assert getattr(getattr(loaded(tmp_path, f"{section}: {{{key}: off}}\n"), section), key) == 0.0


def test_choice_off_may_be_written_without_quotes(tmp_path: Path):
    """YAML takes a plain `off` for false, and the choice that the example file names was refused."""
    config = loaded(tmp_path, "ollama: {manage: off}\norchestrator: {mode: off}\n")
    assert (config.ollama.manage, config.orchestrator.mode) == ("off", "off")


WRONG_ADDRESSES = (
    "http://127.0.0.1:114344",
    "http://127.0.0.1:0",
    "http://127.0.0.1:abc",
    "http://[::1:11434",
    "http://::1]:11434",
    "http://:11434",
    "http://a..b:11434",
    "http://a b:11434",
    "http://a/b\tc",
    "ftp://127.0.0.1",
    "127.0.0.1:11434",
)


@pytest.mark.parametrize("url", WRONG_ADDRESSES)
@pytest.mark.parametrize(
    "text",
    [
        "ollama:\n  base_url: {}\n",
        "mlx:\n  peers:\n  - {}\n",
        "orchestrator:\n  more_mlx_urls:\n  - {}\n",
        "orchestrator:\n  more_ollama_urls:\n  - {}\n",
        "notifications:\n  webhook_url: {}\n",
    ],
)
def test_address_in_the_settings_with_an_impossible_host_or_port_is_refused(
    tmp_path: Path, text: str, url: str
):
    """`http://127.0.0.1:114344` was once accepted, and later ended the agent in a traceback."""
    problem = only_problem(tmp_path, text.format(json.dumps(url)))
    assert "not the address of a server: give http://HOST:PORT" in problem


@pytest.mark.parametrize("end", ["/", "/v1", "/v1/", "/api", "/api/", "//"])
def test_ollama_address_loses_the_path_of_an_api_at_its_end(tmp_path: Path, end: str):
    """With `/v1`, as other programs have it, the agent took a healthy Ollama for one that is down."""
    for server in ("http://127.0.0.1:11434", "https://example.com:443/ollama", "http://api:11434"):
        assert loaded(tmp_path, OLLAMA_BASE_URL=server + end).ollama.base_url == server
        assert loaded(tmp_path, OLLAMA_HOST=server + end).ollama.base_url == server


@pytest.mark.parametrize("url", ["http://api", "https://v1"])
def test_ollama_address_may_have_a_host_named_like_the_path_of_an_api(tmp_path: Path, url: str):
    assert loaded(tmp_path, OLLAMA_BASE_URL=url + "/v1/").ollama.base_url == url


def test_address_in_the_settings_may_have_a_path_or_an_ipv6_host(tmp_path: Path):
    for url in ("http://[::1]:11434", "http://[fe80::1%eth0]:11434", "https://example.com/ollama"):
        assert loaded(tmp_path, OLLAMA_BASE_URL=url).ollama.base_url == url
    assert "%2C" in only_problem(tmp_path, "orchestrator:\n  more_mlx_urls: ['http://a/b,c']\n")


@pytest.mark.parametrize("port", ["00000199999", "0" * 5000 + "99999", DIGITS])
def test_ollama_host_variable_with_an_impossible_port_means_the_default_port(tmp_path: Path, port: str):
    assert loaded(tmp_path, OLLAMA_HOST=f"127.0.0.1:{port}").ollama.base_url == "http://127.0.0.1:11434"


@pytest.mark.parametrize("value", ["fe80::1%]x", "a..b"])
def test_ollama_host_variable_that_makes_no_url_is_refused_with_the_remedy(tmp_path: Path, value: str):
    assert "set ollama.base_url" in only_problem(tmp_path, OLLAMA_HOST=value)


def test_models_that_share_settings_by_a_yaml_merge_key_may_override_them(tmp_path: Path):
    config = loaded(
        tmp_path,
        "models:\n  a: &base {source: 'hf:org/a', kv_bits: 8}\n  b:\n    <<: *base\n    source: 'hf:org/b'\n",
    )
    found = {name: (config.models[name].source, config.models[name].kv_bits) for name in ("a", "b")}
    assert found == {"a": ("hf:org/a", 8), "b": ("hf:org/b", 8)}
