"""Settings given in the environment: `VESTAL_SECTION__KEY`, and the short names that work as they stand."""

import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from vestal.config.errors import ConfigError
from vestal.config.settings import Settings

KeyPath = tuple[str, ...]

SHORT_NAMES: dict[str, KeyPath] = {
    "VESTAL_MLX_PORT": ("mlx", "port"),
    "VESTAL_AGENT_PORT": ("agent", "port"),
    "VESTAL_ORCHESTRATOR_PORT": ("orchestrator", "port"),
    "VESTAL_MODELS_DIR": ("mlx", "store"),
    "VESTAL_DATABASE_URL": ("orchestrator", "database_url"),
    "MLX_PRELOAD_MODELS": ("mlx", "preload"),
    "OLLAMA_BASE_URL": ("ollama", "base_url"),
    "MLX_API_URL": ("orchestrator", "mlx_api_url"),
    "MAC_LLM_URL": ("orchestrator", "mac_llm_url"),
    "RECOVERY_WEBHOOK_URL": ("orchestrator", "recovery_webhook_url"),
    "ORCHESTRATOR_HEALTH_MONITOR_INTERVAL": ("orchestrator", "health_monitor_interval_s"),
    "ORCHESTRATOR_CYCLE_INTERVAL": ("orchestrator", "cycle_interval_s"),
    "SMART_WORKER_MAX_CONCURRENT": ("orchestrator", "max_concurrent"),
}
MODEL_KEY_PARTS = 3  # models.<name>.<key>


def read(env: Mapping[str, str]) -> dict[KeyPath, tuple[str, Any]]:
    """Key path → (name of the variable, its value). The long names win over the short ones.

    An empty variable counts as not set. ConfigError for a VESTAL_SECTION__KEY that is no setting.
    """
    found = {key: (name, _value(key, env[name])) for name, key in SHORT_NAMES.items() if env.get(name)}
    for name in sorted(env):
        if name.startswith("VESTAL_") and "__" in name and env[name]:
            key = _key(name)
            found[key] = (name, _value(key, env[name]))
    return found


def keys() -> Iterator[KeyPath]:
    """Every setting there is, as section and key."""
    for section, section_field in Settings.model_fields.items():
        for key in getattr(section_field.annotation, "model_fields", {}):
            yield section, key


def _key(name: str) -> KeyPath:
    key = tuple(part.lower() for part in name.removeprefix("VESTAL_").split("__"))
    if key in set(keys()) or (key[0] == "models" and len(key) == MODEL_KEY_PARTS):
        return key
    known = ["VESTAL_" + "__".join(k).upper() for k in keys()]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "vestal.example.yaml lists the settings."
    raise ConfigError(f"{name} (environment) is not a setting; {hint}")


def _value(key: KeyPath, text: str) -> Any:
    if not _is_list(key):
        return _yaml(text) if text.lstrip().startswith("{") else text
    if text.lstrip().startswith("["):
        return _yaml(text)
    return [part.strip() for part in text.split(",") if part.strip()]


def _yaml(text: str) -> Any:
    """A list or mapping written out; what is none stays text, and is complained of as such."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _is_list(key: KeyPath) -> bool:
    section = Settings.model_fields.get(key[0])
    fields = getattr(section.annotation, "model_fields", {}) if section else {}
    return key[-1] in fields and typing.get_origin(fields[key[-1]].annotation) is list
