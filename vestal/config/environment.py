"""Read settings from environment variables: `VESTAL_SECTION__KEY`, and some shorter names."""

import difflib
import logging
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from vestal.config.errors import ConfigError
from vestal.config.model_names import find_named
from vestal.config.settings import Settings
from vestal.config.yaml_file import KeyPath, parse

SHORT_NAMES: dict[str, KeyPath] = {
    "VESTAL_MLX_PORT": ("mlx", "port"),
    "VESTAL_AGENT_PORT": ("agent", "port"),
    "VESTAL_ORCHESTRATOR_PORT": ("orchestrator", "port"),
    "VESTAL_MODELS_DIR": ("mlx", "store"),
    "VESTAL_DATABASE_URL": ("orchestrator", "database_url"),
    "MLX_PRELOAD_MODELS": ("mlx", "preload"),
    "OLLAMA_ORIGINS": ("mlx", "origins"),
    "OLLAMA_BASE_URL": ("ollama", "base_url"),
    "MLX_API_URL": ("orchestrator", "mlx_api_url"),
    "MAC_LLM_URL": ("orchestrator", "mac_llm_url"),
    "RECOVERY_WEBHOOK_URL": ("orchestrator", "recovery_webhook_url"),
    "ORCHESTRATOR_HEALTH_MONITOR_INTERVAL": ("orchestrator", "health_monitor_interval_s"),
    "ORCHESTRATOR_CYCLE_INTERVAL": ("orchestrator", "cycle_interval_s"),
    "SMART_WORKER_MAX_CONCURRENT": ("orchestrator", "max_concurrent"),
    "NIGHTLY_HOUR": ("orchestrator", "nightly_hour"),
}
MODEL_KEY_LENGTH = 3  # models, NAME, KEY
LOG_LEVEL_VARIABLE = "VESTAL_LOG_LEVEL"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def read(env: Mapping[str, str], models: Iterable[str] = ()) -> dict[KeyPath, tuple[str, Any]]:
    """Return the settings in the environment: key path → (name of the variable, value).

    Every setting has a long name, such as VESTAL_MLX__PORT, and those in SHORT_NAMES also have a short one,
    such as VESTAL_MLX_PORT. The long name has precedence. An empty variable counts as unset. The names of
    variables are upper case, so the name of a model in a variable is compared with those in `models` without
    regard to case, and the key path gets the spelling in `models`. Raises ConfigError if a long name,
    VESTAL_SECTION__KEY, names no setting.
    """
    found = {key: (name, _parse(key, env[name])) for name, key in SHORT_NAMES.items() if env.get(name)}
    for name in sorted(env):
        if name.startswith("VESTAL_") and "__" in name and env[name]:
            key = _key_of(name, models)
            found[key] = (name, _parse(key, env[name]))
    return found


def key_of(name: str) -> KeyPath | None:
    """Return the path of the setting that the environment variable `name` sets, such as `("mlx", "port")`;
    None if the variable sets none. Raises ConfigError if a long name, VESTAL_SECTION__KEY, names no setting.
    """
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    return _key_of(name, ()) if name.startswith("VESTAL_") and "__" in name else None


def all_keys() -> Iterator[KeyPath]:
    """Yield the section and key of every setting."""
    for section, section_field in Settings.model_fields.items():
        for key in getattr(section_field.annotation, "model_fields", {}):
            yield section, key


def log_level(env: Mapping[str, str]) -> str:
    """Return the least severity of the lines in the agent's log, from the variable VESTAL_LOG_LEVEL in upper
    or lower case; INFO if it is unset. Raises ConfigError if it names no level.
    """
    given = env.get(LOG_LEVEL_VARIABLE, "").strip() or "INFO"
    if not isinstance(logging.getLevelName(given.upper()), int):  # it knows more names, such as WARN
        levels = f"{', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}"
        raise ConfigError(
            f'{LOG_LEVEL_VARIABLE} (environment) is "{given[:60]}": give {levels}, or unset it.'
        )
    return given.upper()


def _key_of(name: str, models: Iterable[str]) -> KeyPath:
    key = tuple(part.lower() for part in name.removeprefix("VESTAL_").split("__"))
    if key in set(all_keys()):
        return key
    if key[0] == "models" and len(key) == MODEL_KEY_LENGTH:
        return key[0], find_named(key[1], models, str) or key[1], key[2]
    known = ["VESTAL_" + "__".join(known_key).upper() for known_key in all_keys()]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "vestal.example.yaml lists the settings."
    raise ConfigError(f"{name} (environment) is not a setting; {hint}")


def _parse(key: KeyPath, text: str) -> Any:
    """Convert the text of the variable for the setting `key`.

    If the setting is a list, the text is parsed as YAML if it begins with `[`, and else split at its commas.
    The text of any other setting is parsed as YAML if it begins with `{`, and else returned as it is. Invalid
    YAML is also returned as it is, and validation then refuses it.
    """
    if not _is_list(key):
        return _parse_yaml(text) if text.lstrip().startswith("{") else text
    if text.lstrip().startswith("["):
        return _parse_yaml(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_yaml(text: str) -> Any:
    """Return the list or mapping in the text. Invalid YAML stays text, which validation then refuses."""
    try:
        return parse(text)[1]
    except yaml.YAMLError:
        return text


def _is_list(key: KeyPath) -> bool:
    section = Settings.model_fields.get(key[0])
    fields = getattr(section.annotation, "model_fields", {}) if section else {}
    return key[-1] in fields and typing.get_origin(fields[key[-1]].annotation) is list
