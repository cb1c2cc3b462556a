"""Load the configuration: the defaults, the file over them, the environment over both."""

import contextlib
import os
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from vestal.config import environment, ollama_host, paths, yaml_file
from vestal.config.errors import ConfigError, StateFolderRefused
from vestal.config.paths import Home, expand
from vestal.config.settings import Config, Settings
from vestal.config.validation_messages import sentences, sentences_of_replaced_values
from vestal.config.yaml_file import KeyPath, YamlFile

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SETTLE_AFTER_KILL_ON_MAC_S = 5.0  # Metal returns the memory of a killed process late


def load(env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Config:
    """Return the configuration in force. Raises ConfigError with a sentence for each mistake.

    Raises StateFolderRefused if this version of Vestal cannot use the state folder, for example because a
    newer version has written it. This protects the folder, because every program loads the configuration
    before it writes anything.
    """
    env = os.environ if env is None else env
    cwd = cwd or working_folder()
    home = Home.find(env, cwd)
    refuse_unusable_state_folder(home)
    environment.log_level(env)
    path = _find_file(env, cwd, home)
    file = yaml_file.read(path) if path else None
    variables = environment.read(env, _model_names(file))
    settings = _validated(file, variables)
    return _finish(_with_ollama_host(settings, env), home, path, env, cwd)


def defaults_at_home(env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Config:
    """Return the defaults for the home in use: for commands that must work with a broken configuration."""
    env = os.environ if env is None else env
    cwd = cwd or working_folder()
    return _finish(Settings(), Home.find(env, cwd), None, env, cwd)


def refuse_unusable_state_folder(home: Home) -> None:
    """Raise StateFolderRefused if this version of Vestal cannot use the state folder."""
    if refusal := home.judge_format().refusal:
        raise StateFolderRefused(refusal)


def working_folder() -> Path:
    """Return the folder that this process runs in. If that folder was deleted, change to `/` and return `/`,
    because libraries that a service imports fail without a working folder. So a service can be restarted
    after the checkout in which `vestal up` ran was replaced.
    """
    with contextlib.suppress(OSError):
        return Path.cwd()
    os.chdir("/")
    return Path("/")


def _find_file(env: Mapping[str, str], cwd: Path, home: Home) -> Path | None:
    """Return the configuration file: the one in the variable VESTAL_CONFIG, or else the first `vestal.yaml`
    in the working folder, the home, and the checkout that this program runs from; None if there is none.

    The checkout counts because `vestal` is also called by its path, and started by other programs, in other
    folders than the checkout. Raises ConfigError if VESTAL_CONFIG names no file.
    """
    if env.get("VESTAL_CONFIG"):
        path = expand(env["VESTAL_CONFIG"], env, cwd)
        if not path.is_file():
            raise ConfigError(f"VESTAL_CONFIG names {path}, which is not there: correct it, or unset it.")
        return path
    checkout = paths.checkout()
    folders = (cwd, home.root, *([checkout] if checkout else []))
    return next((path for folder in folders if (path := folder / "vestal.yaml").exists()), None)


def _model_names(file: YamlFile | None) -> list[str]:
    models = file.data.get("models") if file else None
    return [name for name in models if isinstance(name, str)] if isinstance(models, dict) else []


def _validated(file: YamlFile | None, variables: dict[KeyPath, tuple[str, Any]]) -> Settings:
    """Return the settings of the configuration file with the environment variables over them.

    Raises ConfigError if they are invalid. A value of the file that a variable replaces must be valid too.
    Otherwise the mistake would stop the start only after somebody has unset the variable.
    """
    data = file.data if file else {}
    variable_names = {key: name for key, (name, _) in variables.items()}
    settings, problems = Settings(), list[str]()
    try:
        settings = Settings.model_validate(_merge(data, variables))
    except ValidationError as error:
        problems += sentences(error, file, variable_names)
    if file and variables:
        try:
            Settings.model_validate(_merge(data, {}))
        except ValidationError as error:
            problems += sentences_of_replaced_values(error, file, variable_names)
    if problems:
        raise ConfigError(problems)
    return settings


def _merge(data: dict[str, Any], variables: dict[KeyPath, tuple[str, Any]]) -> dict[str, Any]:
    """Return a copy of `data`, the contents of the configuration file, with the values of the environment
    variables in place of the file's. `variables` maps the path of a setting, such as `("mlx", "port")`, to
    the name of its variable and the value. A variable is ignored if `data` has no mapping in the place of its
    section; validation then refuses that section.
    """
    # A section with nothing in it (`mlx:`) is null in YAML, and stands for its defaults.
    merged = {key: deepcopy(value) for key, value in data.items() if value is not None}
    for path, (_, value) in variables.items():
        mapping = merged
        for part in path[:-1]:
            inner = mapping.setdefault(part, {})
            if not isinstance(inner, dict):
                break
            mapping = inner
        else:
            mapping[path[-1]] = value
    return merged


def _with_ollama_host(settings: Settings, env: Mapping[str, str]) -> Settings:
    """Return the settings with the address in OLLAMA_HOST as `ollama.base_url`, unless that is configured
    already. Raises ConfigError if OLLAMA_HOST is invalid.

    An OLLAMA_HOST that names this machine's MLX server is ignored: a user sets it so that Ollama's clients
    call the MLX server, and it does not say where Ollama is.
    """
    url = ollama_host.base_url(env)
    if url is None or "base_url" in settings.ollama.model_fields_set:
        return settings
    parts = urlsplit(url)
    if parts.port == settings.mlx.port and parts.hostname in LOOPBACK:
        return settings
    return settings.model_copy(update={"ollama": settings.ollama.model_copy(update={"base_url": url})})


def _finish(settings: Settings, home: Home, path: Path | None, env: Mapping[str, str], cwd: Path) -> Config:
    """Return the configuration: the settings, with `home` and with the configuration file `path`.

    The paths of the section `mlx` are made absolute. `~` is the user's home folder according to `env`, and a
    relative path begins at the folder of the configuration file, or at `cwd` if there is no file. On a Mac,
    `supervision.settle_after_kill_s` is 5 seconds if it was not configured.
    """
    base = path.parent if path else cwd
    mlx = settings.mlx.model_copy(
        update={
            "models_folder": expand(settings.mlx.models_folder, env, base),
            "store": expand(settings.mlx.store, env, base) if settings.mlx.store else None,
        }
    )
    supervision = settings.supervision
    if sys.platform == "darwin" and "settle_after_kill_s" not in supervision.model_fields_set:
        supervision = supervision.model_copy(update={"settle_after_kill_s": SETTLE_AFTER_KILL_ON_MAC_S})
    sections = {**dict(settings), "mlx": mlx, "supervision": supervision}
    return Config(**sections, home=home, file=path)
