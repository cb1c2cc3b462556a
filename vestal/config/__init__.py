"""Configuration: defaults, then one file, then the environment; every mistake is named with its place."""

from vestal.config.errors import ConfigError
from vestal.config.load import defaults_at_home, load
from vestal.config.model_names import canonical
from vestal.config.paths import Home
from vestal.config.settings import Config
from vestal.config.token import ensure_token, read_token, restore_token

__all__ = [
    "Config",
    "ConfigError",
    "Home",
    "defaults_at_home",
    "canonical",
    "ensure_token",
    "restore_token",
    "load",
    "read_token",
]
