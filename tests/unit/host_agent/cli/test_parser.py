"""The table of commands: their modules, their help and their examples; and the completion of shells."""

from __future__ import annotations

import importlib
import shlex
import subprocess
import sys

import pytest

from host_agent.cli import parser
from host_agent.cli.completion.completion import script
from host_agent.service_logs import LOG_FILES
from vestal.config import load

HEAVY = ("aiohttp", "asyncio", "psutil", "pydantic", "rich", "shtab", "vestal.config", "yaml")


@pytest.mark.parametrize("name", sorted(parser.COMMANDS))
def test_every_command_has_a_run_function_and_help_in_whole_sentences(name: str):
    command = parser.COMMANDS[name]
    assert callable(importlib.import_module(f"host_agent.cli.{command.module}").run)
    assert command.help[0].isupper() and command.help.endswith(".")
    assert command.help in " ".join(parser.build().format_help().split())


@pytest.mark.parametrize("name", sorted(parser.COMMANDS))
def test_every_example_in_a_commands_help_is_a_valid_call_of_that_command(name: str):
    assert parser.COMMANDS[name].examples
    for line, purpose in parser.COMMANDS[name].examples:
        words = shlex.split(line)
        written = next((at for at, word in enumerate(words) if word in ("<", ">")), len(words))
        assert parser.parse(words[:written]).command == name
        assert purpose


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_of_a_command_shows_each_example_in_full_on_a_terminal_of_any_width(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit, match="0"):
        parser.parse(["logs", "--help"])
    help_text = capsys.readouterr().out
    for line, _ in parser.COMMANDS["logs"].examples:
        assert f"  vestal {line}" in help_text


def test_help_of_the_command_line_imports_no_large_module(repo):
    program = "import sys; from host_agent.cli import parser; parser.build().format_help()"
    program += f"; print([module for module in {HEAVY} if module in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_script_contains_commands_options_services_and_programs(shell: str, tmp_path):
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "my home")}, tmp_path)
    text = script(shell, config)
    assert all(name in text for name in parser.COMMANDS)
    assert all(service in text for service in LOG_FILES)
    assert "claude" in text and "since" in text and "my home" in text


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("models", "list_models"),
        ("models --json", "list_models"),
        ("models list --json", "list_models"),
        ("models search qwen3 4bit -n 3", "search"),
        ("models suggest --ram 24g --json", "suggest"),
        ("models info qwen3:8b", "info"),
        ("models ensure a b", "pull"),
        ("models pull --yes a", "pull"),
        ("models remove a", "remove"),
        ("models rm a", "remove"),
    ],
)
def test_every_subcommand_of_vestal_models_is_run_by_an_existing_module(line: str, module: str):
    options = parser.parse(shlex.split(line))
    assert (options.command, options.module) == ("models", module)
    assert callable(importlib.import_module(f"host_agent.cli.models.{module}").run)


@pytest.mark.parametrize(
    ("line", "is_json"),
    [
        ("models", False),
        ("models list", False),
        ("models --json", True),
        ("models list --json", True),
        ("models --json list", True),
        ("models --json pull a", True),
    ],
)
def test_option_json_of_vestal_models_may_stand_before_or_after_the_action(line: str, is_json: bool):
    """`vestal models --json` was once a usage error."""
    assert parser.parse(shlex.split(line)).json is is_json


@pytest.mark.parametrize("option", ["--dry-run", "--reset", "--json"])
def test_recover_once_may_be_combined_with_every_other_option_because_once_is_the_default(option: str):
    """`vestal recover --once --dry-run` was a usage error."""
    options = parser.parse(["recover", "--once", option])
    assert options.once and getattr(options, option.removeprefix("--").replace("-", "_"))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nothing",
        "status --jsn",
        "task --foo",
        "models lst",
        "models pull --foo",
        "up --timeout x",
        "recover --once --dry-run --reset",
    ],
)
def test_wrong_option_or_command_exits_with_64_which_no_command_uses_for_its_result(line: str, capsys):
    """argparse's own 2 means "down" for `vestal status`, and "cancelled" for `vestal task`."""
    with pytest.raises(SystemExit, match="64"):
        parser.parse(shlex.split(line))
    assert capsys.readouterr().err.splitlines()[-1].startswith("vestal")
