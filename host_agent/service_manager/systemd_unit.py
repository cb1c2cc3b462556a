"""Unit files from the templates in deploy/systemd, quoted as systemd.syntax(7) requires. Pure."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from host_agent.service_manager.jobs import InstalledProgram

PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
EXEC_START_PROGRAM = re.compile(r'^ExecStart="((?:[^"\\]|\\.)*)"', re.MULTILINE)
WORKING_DIRECTORY = re.compile(r"^WorkingDirectory=(.*)$", re.MULTILINE)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the template with every `@NAME@` replaced. The values must be quoted already, as their places in
    the unit file require.

    Raises KeyError if a placeholder has no value.
    """
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def rest_of_line(text: str) -> str:
    """Quote the value of a setting that takes the rest of its line, such as a path."""
    return text.replace("%", "%%")


def command_line(words: Sequence[str]) -> str:
    """Quote a command for ExecStart=, where `$` would begin a variable."""
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def environment_lines(variables: Mapping[str, str]) -> str:
    """Return one Environment= line for each variable."""
    return "\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items())


def installed_program(text: str) -> InstalledProgram:
    """Return the Python and the checkout that a unit file starts. Raises ValueError if it is not one of
    Vestal's.
    """
    program, folder = EXEC_START_PROGRAM.search(text), WORKING_DIRECTORY.search(text)
    if not program or not folder:
        raise ValueError("no ExecStart or no WorkingDirectory")
    return InstalledProgram(Path(_unquoted(program[1])), Path(folder[1].replace("%%", "%")))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    unescaped = text.replace("$$", "$").replace("%%", "%")
    return re.sub(r"\\(.)", r"\1", unescaped)
