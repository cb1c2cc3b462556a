"""Unit files from the templates in deploy/systemd, quoted as systemd.syntax(7) and systemd.service(5) say."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from host_agent.service_manager.unit import Written

PLACEHOLDER = re.compile(r"@([A-Z_]+)@")
FIRST_WORD = re.compile(r'^ExecStart="((?:[^"\\]|\\.)*)"', re.MULTILINE)
FOLDER = re.compile(r"^WorkingDirectory=(.*)$", re.MULTILINE)


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with every `@NAME@` replaced. The values are ready for their place.

    KeyError for a placeholder without a value.
    """
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def plain(text: str) -> str:
    """For a setting that takes the rest of its line, such as a path."""
    return text.replace("%", "%%")


def command(words: Sequence[str]) -> str:
    """For ExecStart=, where `$` would begin a variable."""
    return " ".join(_quoted(word).replace("$", "$$") for word in words)


def environment(told: Mapping[str, str]) -> str:
    """Environment= lines, one for each variable."""
    return "\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in told.items())


def written(text: str) -> Written:
    """What an installed unit starts. ValueError where it is none of ours."""
    program, folder = FIRST_WORD.search(text), FOLDER.search(text)
    if not program or not folder:
        raise ValueError("no ExecStart or no WorkingDirectory")
    return Written(Path(_unquoted(program[1])), Path(folder[1].replace("%%", "%")))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def _unquoted(text: str) -> str:
    plain_text = text.replace("$$", "$").replace("%%", "%")
    return re.sub(r"\\(.)", r"\1", plain_text)
