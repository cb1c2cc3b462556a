"""Collect the settings of the installed jobs from this shell's environment, its Python and this checkout.

Secrets are never written into a job's file; `vestal.yaml` may hold them.
"""

import math
import os
import pwd
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from host_agent.cli.run.down import graceful_stop_s
from host_agent.service_manager.jobs import JobSettings
from host_agent.services.child_environment import REPO, common
from host_agent.services.find_program import EXTRA_FOLDERS
from mlx_server.model_store.sources.local_paths import source_path
from mlx_server.model_store.sources.source import PathSource
from vestal.config import Config, environment, validation_messages

FOREIGN_SETTINGS = frozenset(
    {
        *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
        *("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("https_proxy", "http_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        "TZ",
    }
)
FOREIGN_PREFIXES = ("HF_", "OLLAMA_")
"""The variables of other programs that a job's file takes from this shell, as an agent that this shell starts
would: FOREIGN_SETTINGS, and all whose names begin with one of these.
"""

FOREIGN_PATHS = frozenset(
    {
        *("DOCKER_CONFIG", "DOCKER_CERT_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_TOKEN_PATH", "OLLAMA_MODELS"),
    }
)
"""Those of them that hold the path of a file or folder."""

SET_BY_CONFIG = ("VESTAL_HOME", "VESTAL_CONFIG")  # set from the configuration, which has absolute paths
SECRET_WORDS = frozenset(
    {"HEADERS", "TOKEN", "KEY", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"}
)
NO_SECRETS = ("HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN")  # although their names contain a SECRET_WORD
PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]*@")
PASSWORD_OF_PROXY = re.compile(r"[^/@\s]*:[^/@\s]*@")  # a proxy may be given without `http://`
PATH_SOURCE = "path:"  # begins the source of a model that is in a folder
SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
MIN_STOP_S, STOP_MARGIN_S = 120, 30


def gather(config: Config, daemon: bool) -> tuple[JobSettings, list[str]]:
    """Return the settings of the jobs that `vestal install` installs, and the names of the settings in this
    shell's environment that are left out because they seem to be secret, such as tokens and passwords.

    With `daemon`, the jobs are for launchd's system domain, in which they run from boot on, without a login.
    """
    settings, secrets = split_environment(os.environ)
    absolute = {name: with_absolute_path(name, value, config) for name, value in settings.items()}
    variables = {"PATH": search_path(os.environ, EXTRA_FOLDERS), **absolute}
    if daemon:  # launchd's system domain sets neither HOME nor USER
        user = pwd.getpwuid(os.getuid())
        variables |= {"HOME": os.environ.get("HOME") or user.pw_dir, "USER": user.pw_name}
    job_settings = JobSettings(
        environment={**variables, **common(config)},
        checkout=REPO,
        python=sys.executable,
        stop_within_s=stop_within_s(config),
        recover_each_s=math.ceil(config.agent.recovery_interval_s),
    )
    return job_settings, secrets


def stop_within_s(config: Config) -> int:
    """Return how many seconds a job gets to stop, which is more than the agent's graceful stop takes."""
    return max(MIN_STOP_S, math.ceil(graceful_stop_s(config)) + STOP_MARGIN_S)


def split_environment(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return Vestal's settings in `env` that are not secret, and the sorted names of those settings that are
    secret.
    """
    ours = {name: value for name, value in env.items() if value and _is_setting(name)}
    secrets = sorted(name for name, value in ours.items() if is_secret(name, value))
    return {name: value for name, value in ours.items() if name not in secrets}, secrets


def is_secret(name: str, value: str) -> bool:
    """Return whether the variable sets a setting that is declared as secret, its name suggests a secret, or a
    URL in its value contains a password.
    """
    if name in NO_SECRETS:
        return False
    key = environment.key_of(name)
    by_name = (key and validation_messages.is_secret(key)) or SECRET_WORDS & set(name.upper().split("_"))
    is_proxy = name.lower().endswith("_proxy") and name.lower() != "no_proxy"
    return bool(by_name or PASSWORD_IN_URL.search(value) or (is_proxy and PASSWORD_OF_PROXY.match(value)))


def with_absolute_path(name: str, value: str, config: Config) -> str:
    """Return the value of a variable for a job, which runs in another working folder than this shell. For one
    of Vestal's own path settings, return the path as the configuration resolved it. In a variable that
    another program reads (FOREIGN_PATHS), make a relative path absolute. Return any other value unchanged.
    """
    key = environment.key_of(name)
    if key:
        setting = getattr(getattr(config, key[0]), key[1], None)
        if isinstance(setting, Path) and setting.is_absolute():
            return str(setting)
        if key[0] == "models" and value.startswith(PATH_SOURCE):
            return f"{PATH_SOURCE}{source_path(config, PathSource(value.removeprefix(PATH_SOURCE)))}"
    if name in FOREIGN_PATHS and not value.startswith("~"):
        return os.path.abspath(value)
    return value


def search_path(env: Mapping[str, str], extra_folders: Sequence[str]) -> str:
    """Return PATH for a job: the folders of PATH in `env`, `extra_folders` and the system's. launchd's own
    PATH lacks Homebrew.

    Relative folders are dropped, because a job runs in another working folder.
    """
    folders = [*env.get("PATH", "").split(os.pathsep), *extra_folders, *SYSTEM_FOLDERS]
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if os.path.isabs(folder)))


def _is_setting(name: str) -> bool:
    if name in SET_BY_CONFIG:
        return False
    ours = name.startswith(("VESTAL_", "OTEL_")) or name in environment.SHORT_NAMES
    return ours or name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_SETTINGS
