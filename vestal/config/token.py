"""The token for the listener and the orchestrator, in a file that only its owner can read."""

import contextlib
import os
import secrets
from pathlib import Path

from vestal.config.errors import ConfigError
from vestal.config.paths import Home


def ensure_token(home: Home) -> str:
    """Return the token, and make it first if there is none. Two processes at once get the same token."""
    if not home.token.exists():
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(home)
    home.token.chmod(0o600)
    return read_token(home)


def restore_token(home: Home, token: str) -> bool:
    """Write `token` to the file if it is missing or has another one, and return whether that was necessary.

    Agent and containers keep the token from their start, so that another one in the file would lock out the
    user. To get a new token, the user runs `vestal down`, deletes the file, and runs `vestal up`.
    """
    with contextlib.suppress(ConfigError):
        if read_token(home) == token:
            return False
    temporary = _write_temporary(home, token)
    temporary.replace(home.token)
    return True


def read_token(home: Home) -> str:
    """Return the token in the file. Raises ConfigError if there is none."""
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
    """Write a new token, unless another process has just done so.

    A link makes the file appear complete, and fails if there is one already.
    """
    temporary = _write_temporary(home, secrets.token_urlsafe(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, home.token)
    finally:
        temporary.unlink()


def _write_temporary(home: Home, token: str) -> Path:
    temporary = home.token.with_name(f".token.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, f"{token}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return temporary
