"""The configuration: defaults, overridden by one file, overridden by the environment.

A mistake in it keeps a program from starting; the error message names the line of the file, or the
environment variable.
"""

from vestal.config.errors import ConfigError, StateFolderRefused
from vestal.config.load import defaults_at_home, load
from vestal.config.model_names import adapter_name, canonical, find_named, is_valid_name, name_key
from vestal.config.paths import Home
from vestal.config.settings import Config
from vestal.config.token import KeptToken, ensure_token, read_token

__all__ = [
    "Config",
    "ConfigError",
    "Home",
    "KeptToken",
    "StateFolderRefused",
    "adapter_name",
    "canonical",
    "defaults_at_home",
    "ensure_token",
    "find_named",
    "is_valid_name",
    "load",
    "name_key",
    "read_token",
]
