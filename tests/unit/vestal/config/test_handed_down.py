"""The settings that a parent hands down to its children, whatever happens to the configuration file
meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vestal.config import Config, ConfigError, load
from vestal.config.handed_down import MOST_CHARS, SECTIONS, VARIABLE, for_child, load_handed_down

SETTINGS = """
mlx:
  port: 4321
  bind: [0.0.0.0]
  api_key: a-key-of-24-characters-ab
  keep_alive: 5m
  memory_limit: 20g
  models_folder: my-models
  kv_bits: 8
models:
  big: {source: "hf:a/big", draft: "hf:a/small", adapters: {french: "path:/french"}}
agent: {port: 4322}
notifications: {webhook_url: "https://ntfy.example/topic"}
"""


def _handed_down(tmp_path: Path, text: str = SETTINGS) -> tuple[dict[str, str], Config]:
    """Return the environment of a child whose parent has loaded `text`, and the parent's configuration."""
    (tmp_path / "vestal.yaml").write_text(text)
    env = {"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path)}
    config = load(env, tmp_path)
    return env | for_child(config), config


@pytest.mark.parametrize("edited", [None, "mlx: {prot: 1}\n", "mlx: {port: 9999}\n"])
def test_child_has_the_settings_of_its_parent_although_the_file_was_edited_or_deleted(
    tmp_path: Path, edited: str | None
):
    """Earlier, a gateway that was restarted after an edit served another port than the agent expected, and an
    engine that was restarted while the file had a typo gave up, so that every waiting request failed.
    """
    env, parent = _handed_down(tmp_path)
    if edited is None:
        (tmp_path / "vestal.yaml").unlink()
    else:
        (tmp_path / "vestal.yaml").write_text(edited)
    config = load_handed_down(env)
    assert VARIABLE not in env, "no grandchild inherits it unasked"
    assert (config.home, config.file) == (parent.home, parent.file)
    for section in SECTIONS:
        assert getattr(config, section) == getattr(parent, section)
    assert "ntfy" not in str(for_child(parent)), "what a child does not need is not handed down"


@pytest.mark.parametrize(
    "ports", ["mlx: {port: 8088}\norchestrator: {port: 9090}\n", "mlx: {port: 9099}\nagent: {port: 9098}\n"]
)
def test_child_has_the_settings_of_a_parent_whose_port_is_the_default_of_another_service(
    tmp_path: Path, ports: str
):
    """The other service's default was added to what was handed down, which was then invalid and ignored."""
    env, parent = _handed_down(tmp_path, ports)
    (tmp_path / "vestal.yaml").write_text("mlx: {prot: 1}\n")
    assert load_handed_down(env).mlx == parent.mlx


@pytest.mark.parametrize("text", ["", "{", "[]", '{"mlx": {"unknown_in_this_version": 1}}'])
def test_child_that_cannot_read_what_its_parent_handed_down_reads_the_configuration_file(
    tmp_path: Path, text: str
):
    env, _ = _handed_down(tmp_path)
    assert load_handed_down(env | {VARIABLE: text, "VESTAL_MLX__PORT": "77"}).mlx.port == 77


def test_child_refuses_the_state_folder_of_a_newer_version_also_with_handed_down_settings(tmp_path: Path):
    env, _ = _handed_down(tmp_path)
    (tmp_path / "format").write_text("2")
    with pytest.raises(ConfigError, match="newer Vestal"):
        load_handed_down(env)


def test_settings_that_are_too_long_for_a_variable_are_not_handed_down(tmp_path: Path):
    env, parent = _handed_down(tmp_path, f"mlx: {{api_key: {'k' * MOST_CHARS}}}\n")
    assert env[VARIABLE] == ""
    assert load_handed_down(env).mlx == parent.mlx
