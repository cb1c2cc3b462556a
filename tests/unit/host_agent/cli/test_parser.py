"""The table of commands: their modules and their help."""

from __future__ import annotations

import importlib

import pytest

from host_agent.cli import parser


@pytest.mark.parametrize("name", sorted(parser.COMMANDS))
def test_every_command_has_a_run_function_and_a_help_of_whole_sentences(name: str):
    command = parser.COMMANDS[name]
    assert callable(importlib.import_module(f"host_agent.cli.{command.module}").run)
    assert command.help[0].isupper() and command.help.endswith(".")
    assert command.help in " ".join(parser.build().format_help().split())
