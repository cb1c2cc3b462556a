"""Collect the settings of the installed jobs from this shell's environment, its Python and this checkout.

Secrets are never written into a job's file; `vestal.yaml` may hold them.
"""

import math
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from host_agent.cli.run.down import graceful_stop_s
from host_agent.service_manager.jobs import JobSettings
from host_agent.services.child_environment import REPO, common
from host_agent.services.find_program import EXTRA_FOLDERS
from vestal.config import Config
from vestal.config.environment import SHORT_NAMES

FOREIGN_SETTINGS = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "HF_HOME",
    "HF_ENDPOINT",
    "OLLAMA_HOST",
    "OLLAMA_MODELS",
    "TZ",
)
"""The variables of other programs that a job's file takes from this shell."""

SET_BY_CONFIG = ("VESTAL_HOME", "VESTAL_CONFIG")  # set from the configuration, which has absolute paths
SECRET_WORDS = frozenset(
    {"HEADERS", "TOKEN", "KEY", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"}
)
SECRET_PARTS = ("DATABASE_URL", "NOTIFICATIONS__WEBHOOK")
SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
MIN_STOP_S, STOP_MARGIN_S = 120, 30


def gather(config: Config, daemon: bool) -> tuple[JobSettings, list[str]]:
    """Return the settings of the jobs that `vestal install` installs, and the names of the settings in this
    shell's environment that are left out because they seem to be secret, such as tokens and passwords.

    With `daemon`, the jobs are for launchd's system domain, in which they run from boot on, without a login.
    """
    settings, secrets = split_environment(os.environ)
    variables = {"PATH": search_path(os.environ, EXTRA_FOLDERS), **settings}
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
    """Return whether the variable's name suggests a secret, or its value is a URL that contains a
    password.
    """
    upper = name.upper()
    by_name = SECRET_WORDS & set(upper.split("_")) or any(part in upper for part in SECRET_PARTS)
    return bool(by_name) or _has_password(value)


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
    return name.startswith(("VESTAL_", "OTEL_")) or name in SHORT_NAMES or name in FOREIGN_SETTINGS


def _has_password(value: str) -> bool:
    try:
        return bool(urlsplit(value).password)
    except ValueError:
        return True
