"""The token that every caller of the listener and the orchestrator shows. Made once, mode 0600."""

import contextlib
import os
import secrets

from host_agent.config.errors import ConfigError
from host_agent.config.paths import Home


def ensure_token(home: Home) -> str:
    """The token, made now if there is none. Two callers at once get the same one."""
    if not home.token.exists():
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(home)
    home.token.chmod(0o600)
    return read_token(home)


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
    temporary = home.token.with_name(f".token.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, (secrets.token_urlsafe(32) + "\n").encode())
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, home.token)
    finally:
        os.close(descriptor)
        temporary.unlink()
