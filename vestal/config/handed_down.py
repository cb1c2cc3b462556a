"""The settings that a process hands down to the processes it starts, in an environment variable.

A gateway or engine that is started again must have the settings of its parent. If it read the configuration
file instead, it would serve another port than its parent expects once the file was edited, and could not
start while the file has a mistake. Like the other variables of a process, this one can be read only by its
user.
"""

import contextlib
import json
import os
from collections.abc import MutableMapping
from typing import Any

from vestal.config.load import load, refuse_unusable_state_folder, working_folder
from vestal.config.settings import Config

VARIABLE = "VESTAL_SETTINGS"
SECTIONS = frozenset({"mlx", "models", "supervision"})
"""The sections that the gateway and its engine read; the others keep their defaults in these processes."""

_HANDED_DOWN: dict[str, Any] = {
    **dict.fromkeys(SECTIONS | {"home", "file"}, True),
    "agent": {"port"},  # the ports of all services must differ, so a default could collide with `mlx.port`
    "orchestrator": {"port"},
}

MOST_CHARS = 100_000
"""Linux starts no program with a variable of 131,072 bytes. Longer settings are not handed down."""


def for_child(config: Config) -> dict[str, str]:
    """Return the environment variable that hands settings down to a child process: the SECTIONS of `config`,
    its home, the path of its file, and the ports of the agent and the orchestrator. If this takes more than
    MOST_CHARS characters, the variable is empty, and the child reads the configuration file.
    """
    fields = config.model_dump(mode="json", include=_HANDED_DOWN, exclude_unset=True)
    text = json.dumps(fields)
    return {VARIABLE: text if len(text) <= MOST_CHARS else ""}


def read(text: str) -> Config | None:
    """Return the configuration in a value of VARIABLE; None if there is none, or if this version of Vestal
    cannot read it.
    """
    with contextlib.suppress(ValueError):  # pydantic's ValidationError is one
        return Config.model_validate(json.loads(text))
    return None


def load_handed_down(environment: MutableMapping[str, str] = os.environ) -> Config:
    """Return the configuration that the parent process has handed down, and remove its variable from
    `environment`. If there is none, or this version of Vestal cannot read it, return the configuration in
    force from the configuration file and the environment.

    Raises ConfigError if the configuration in force has a mistake. Raises StateFolderRefused if this version
    of Vestal cannot use the state folder, for example because a newer version has written it.
    """
    working_folder()
    config = read(environment.pop(VARIABLE, ""))
    if config is None:
        return load(environment)
    refuse_unusable_state_folder(config.home)
    return config
