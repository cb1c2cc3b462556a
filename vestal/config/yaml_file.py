"""Reads the configuration file and remembers on which line each key stands."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vestal.config.errors import ConfigError

KeyPath = tuple[str, ...]


@dataclass(frozen=True)
class YamlFile:
    """What a file says: `data`, and for each key path the line (from 1) it is written on."""

    path: Path
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def place(self, key: KeyPath) -> str:
        """`vestal.yaml:7` for the key, or for the nearest section around it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return f"{self.path}:{self.lines[key[:length]]}"
        return str(self.path)


def read(path: Path) -> YamlFile:
    """Parse the file; ConfigError names the line of what is not YAML or is there twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: save it as UTF-8.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}: this is not YAML: {error.problem or error.context}.") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: this is not YAML: {str(error).splitlines()[0]}.") from error
    if node is None:
        return YamlFile(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}:1: the file must hold sections such as `mlx:`, not {_kind(data)}.")
    return YamlFile(path, data, _lines(path, node))


def _lines(path: Path, root: yaml.Node) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    for key, line in _walk((), root):
        if key in lines:
            raise ConfigError(f"{path}:{line}: {'.'.join(key)} is given twice (first on line {lines[key]}).")
        lines[key] = line
    return lines


def _walk(prefix: KeyPath, node: yaml.Node) -> Iterator[tuple[KeyPath, int]]:
    if isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            key = (*prefix, str(key_node.value))
            yield key, key_node.start_mark.line + 1
            yield from _walk(key, value_node)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*prefix, str(index)), item.start_mark.line + 1


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "a single value"
