"""The token that every caller of the listener and the orchestrator shows. Made once, mode 0600."""

import contextlib
import os
import secrets
from pathlib import Path

from vestal.config.errors import ConfigError
from vestal.config.paths import Home


def ensure_token(home: Home) -> str:
    """The token, made now if there is none. Two callers at once get the same one."""
    if not home.token.exists():
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(home)
    home.token.chmod(0o600)
    return read_token(home)


def restore_token(home: Home, token: str) -> bool:
    """Puts `token` back where the file is gone or holds another one; whether it had to.

    The containers have the token of the agent's start: a file that says otherwise only locks its owner out.
    A new one is made by `vestal down`, removing the file, and `vestal up`.
    """
    with contextlib.suppress(ConfigError):
        if read_token(home) == token:
            return False
    temporary = _write_aside(home, token)
    temporary.replace(home.token)
    return True


def read_token(home: Home) -> str:
    """The token in its file; ConfigError where there is none."""
    try:
        token = home.token.read_text().strip()
    except FileNotFoundError:
        raise ConfigError(f"There is no token at {home.token}: run `vestal up`, which makes one.") from None
    except OSError as error:
        raise ConfigError(f"The token at {home.token} cannot be read ({error.strerror}).") from error
    if not token:
        raise ConfigError(f"The token at {home.token} is empty: delete the file and run `vestal up`.")
    return token


def _create(home: Home) -> None:
    """Write beside and link: the file appears whole, and never over one that another process made."""
    temporary = _write_aside(home, secrets.token_urlsafe(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, home.token)
    finally:
        temporary.unlink()


def _write_aside(home: Home, token: str) -> Path:
    temporary = home.token.with_name(f".token.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{token}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return temporary
