"""Configuration: defaults, then one file, then the environment; every mistake is named with its place."""

from host_agent.config.errors import ConfigError
from host_agent.config.load import at_home, load
from host_agent.config.model import Config
from host_agent.config.names import canonical
from host_agent.config.paths import Home
from host_agent.config.token import ensure_token, keep_token, read_token

__all__ = [
    "Config",
    "ConfigError",
    "Home",
    "at_home",
    "canonical",
    "ensure_token",
    "keep_token",
    "load",
    "read_token",
]
