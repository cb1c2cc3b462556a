"""The token that clients send to the host agent's HTTP API and to the orchestrator. It is kept in a file
that only its owner can read.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from vestal.best_effort.failures import FAILURES
from vestal.best_effort.files import FileWatch, replace_file, write_file
from vestal.config.errors import ConfigError
from vestal.config.paths import Home


def ensure_token(home: Home) -> str:
    """Return the token, and create it if the file is missing. Concurrent processes get the same token.

    Raises ConfigError if an existing token cannot be read, and OSError if there is none and it cannot be
    written.
    """
    if not home.token.exists():
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(home)
    with contextlib.suppress(OSError):  # a disk that is read-only now must not keep the stack from starting
        home.token.chmod(0o600)
    return read_token(home)


class KeptToken:
    """The token of a running agent, whose file is written again if it is missing or holds another token.

    The agent and the containers use the token that they read at their start, so another token in the file
    would lock out the user. To get a new token, the user runs `vestal down`, deletes the file, and runs
    `vestal up`.
    """

    def __init__(self, home: Home, token: str) -> None:
        self._home, self._token = home, token
        self._watch = FileWatch(home.token)

    def keep(self) -> bool:
        """Write the file again if it is missing or unreadable, or holds another token. Return True if it was
        written.

        If the file cannot be written now, return False; a later call tries again.
        """
        if self._watch.is_unchanged():
            return False
        with contextlib.suppress(ConfigError):
            if read_token(self._home) == self._token:
                self._watch.confirm()
                FAILURES.succeeded("token", target=self._home.token)
                return False
        return replace_file(self._home.token, f"{self._token}\n", "token", again=True) is None


def read_token(home: Home) -> str:
    """Return the token in the file `home.token`. Raises ConfigError if the file is missing, unreadable or
    empty.
    """
    try:
        token = home.token.read_text().strip()
    except FileNotFoundError:
        raise ConfigError(f"There is no token at {home.token}: run `vestal up`, which makes one.") from None
    except OSError as error:
        raise ConfigError(f"The token at {home.token} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ConfigError(
            f"The token at {home.token} is not text: delete the file and run `vestal up`."
        ) from error
    if not token:
        raise ConfigError(f"The token at {home.token} is empty: delete the file and run `vestal up`.")
    return token


def _create(home: Home) -> None:
    """Write a new token, unless another process has just written one. Raises OSError if the token cannot be
    written.

    The token is written to a temporary file, to which a hard link is then made at the token's path. So no
    process reads an incomplete token, and another process's token is not overwritten. On a disk without hard
    links, such as one with exFAT, the file is renamed instead.
    """
    temporary = home.token.with_name(f".token.{os.getpid()}.{secrets.token_hex(4)}")
    write_file(temporary, f"{secrets.token_urlsafe(32)}\n", durable=True)
    try:
        os.link(temporary, home.token)
    except FileExistsError:
        pass
    except OSError:  # EPERM, ENOTSUP or ENOSYS, depending on the disk
        with _locked(home.root / "token.lock"):  # an agent holds the lock on the folder itself all its life
            if not home.token.exists():
                temporary.replace(home.token)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file `path`, which is created, against other processes that lock it, until the `with` block
    ends. On a disk without locks, go on without one.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
