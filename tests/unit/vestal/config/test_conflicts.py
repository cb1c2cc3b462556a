"""Settings that do not fit together: the mistake is reported with the line or the variable of one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vestal.config import ConfigError, load

WHEEL = "pypi:x==1#sha256=" + "1" * 64


def only_problem(tmp_path: Path, text: str, **env: str) -> str:
    (tmp_path / "vestal.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({"HOME": str(tmp_path), **env}, tmp_path)
    (problem,) = caught.value.problems
    assert "is a section" not in problem
    return problem


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("mlx:\n  port: 1\n  bind: [0.0.0.0]\n", 3, ["0.0.0.0", "set mlx.api_key", "Docker bridge"]),
        ("mlx:\n  bind:\n  - 127.0.0.1\n  - 10.0.0.1\n", 4, ["10.0.0.1", "set mlx.api_key"]),
        ("mlx:\n  max_running: 1\n  port: 9099\n", 3, ["mlx.port and agent.port are both 9099"]),
        ("mlx:\n  max_running: 1\nagent:\n  port: 11435\n", 4, ["mlx.port and agent.port are both 11435"]),
        ("agent:\n  port: 8088\n", 2, ["agent.port and orchestrator.port are both 8088"]),
        ("orchestrator:\n  port: 1\n  workers: 2\n", 3, ["orchestrator: `workers`", "set `database_url`"]),
        ("models:\n  a:\n    source: hf:x/y\n    draft: a\n", 4, ["a is its own `draft`"]),
        (f"models:\n  a:\n    source: {WHEEL}\n    sha256: {'2' * 64}\n", 4, ["models.a: ", "differ"]),
        (
            "models:\n  a: {source: 'hf:x/y', draft: b}\n  b:\n    source: hf:x/z\n    draft: a\n",
            2,
            ["in a circle"],
        ),
        (
            "models:\n  a: {source: 'hf:x/y', draft: 'hf:x/z'}\n  a:draft: {source: 'hf:q/r'}\n",
            3,
            ["models: the draft of a is named like a:draft"],
        ),
        (
            "models:\n  a:p: {source: 'hf:x/z'}\n  a:\n    source: hf:x/y\n    adapters: {p: 'path:/p'}\n",
            5,
            ["an adapter of a:latest is named like a:p"],
        ),
        (
            "models:\n  a:\n    source: hf:x/y\n    adapters:\n      p: ftp:x\n",
            5,
            ["models.a.adapters: p names", "not the source of an adapter"],
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_reported_with_a_line(
    tmp_path: Path, text: str, line: int, words: list[str]
):
    """Such a mistake once had no line, or that of its section, and the words "orchestrator is a section"."""
    problem = only_problem(tmp_path, text)
    assert problem.startswith(f"{tmp_path / 'vestal.yaml'}:{line}: ")
    assert all(word in problem for word in words), problem


def test_conflict_of_two_settings_is_reported_with_the_environment_variable_that_sets_one_of_them(
    tmp_path: Path,
):
    problem = only_problem(tmp_path, "agent:\n  port: 4000\n", VESTAL_MLX_PORT="4000")
    assert problem.startswith("VESTAL_MLX_PORT (environment): mlx.port and agent.port")
    problem = only_problem(tmp_path, "", VESTAL_MLX__BIND="0.0.0.0")
    assert problem.startswith("VESTAL_MLX__BIND (environment): mlx.bind opens")
