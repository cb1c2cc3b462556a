"""What the units tell the agent: this shell's settings, never a secret, and where to look for programs."""

import os
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from vestal.config.environment import SHORT_NAMES

ALSO_KEPT = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "HF_HOME", "HF_ENDPOINT", "OLLAMA_MODELS")
NOT_TOLD = ("VESTAL_HOME", "VESTAL_CONFIG")  # the configuration knows them, as absolute paths
SECRET = frozenset({"TOKEN", "KEY", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "CREDENTIAL", "CREDENTIALS"})
SECRET_PARTS = ("DATABASE_URL", "NOTIFICATIONS__WEBHOOK")
SYSTEM_FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")


def settings(env: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What is told, and the names of the secrets that are left out."""
    ours = {name: value for name, value in env.items() if value and _is_setting(name)}
    secret = sorted(name for name, value in ours.items() if is_secret(name, value))
    return {name: value for name, value in ours.items() if name not in secret}, secret


def is_secret(name: str, value: str) -> bool:
    """By its name, or because its address has a password in it."""
    upper = name.upper()
    by_name = SECRET & set(upper.split("_")) or any(part in upper for part in SECRET_PARTS)
    return bool(by_name) or _has_password(value)


def search_path(env: Mapping[str, str], extra: Sequence[str]) -> str:
    """PATH for a job: launchd's own has no Homebrew. A relative folder would mean another one there."""
    folders = [*env.get("PATH", "").split(os.pathsep), *extra, *SYSTEM_FOLDERS]
    return os.pathsep.join(dict.fromkeys(folder for folder in folders if os.path.isabs(folder)))


def _is_setting(name: str) -> bool:
    if name in NOT_TOLD:
        return False
    return name.startswith("VESTAL_") or name in SHORT_NAMES or name in ALSO_KEPT


def _has_password(value: str) -> bool:
    try:
        return bool(urlsplit(value).password)
    except ValueError:
        return True
