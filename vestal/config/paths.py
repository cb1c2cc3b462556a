"""Where Vestal keeps its files: `$VESTAL_HOME`, which is `~/.vestal` by default."""

import contextlib
import hashlib
import os
import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vestal.best_effort.files import DISK_FAULTS, write_file
from vestal.config import state_format

SOURCES = Path(__file__).resolve().parents[2]
"""The folder with the packages of this program: a checkout, or where pip has installed them."""


def user_folder(env: Mapping[str, str]) -> Path:
    """Return the user's home folder: `$HOME`, or the one that the system knows."""
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def expand(path: str | Path, env: Mapping[str, str], base: Path) -> Path:
    """Return `path` as an absolute path. A leading `~` or `~/` is replaced by the user's home folder (`$HOME`
    in `env`, or else the one that the system knows), and a relative path begins at `base`. Nothing else is
    expanded: neither `~NAME` nor `$NAME`.

    `.` and `..` are removed by the text of the path alone, without following links. So two spellings of
    Vestal's home give the same path, which is compared, and whose digest is in the names of jobs and
    containers.
    """
    text = str(path)
    is_in_user_folder = text == "~" or text.startswith("~/")
    full = user_folder(env) / text[2:] if is_in_user_folder else (base / text).absolute()
    return Path(os.path.normpath(full))


def checkout() -> Path | None:
    """Return the checkout that this program runs from; None if the program was installed without one."""
    return SOURCES if (SOURCES / "pyproject.toml").is_file() else None


@dataclass(frozen=True)
class Home:
    """The folders and files of one installation. Installations with different homes do not affect each other.

    `root` is `$VESTAL_HOME`, `logs` the folder of the logs, and `default_root` the root without
    `$VESTAL_HOME`.
    """

    root: Path
    logs: Path
    default_root: Path

    @classmethod
    def find(cls, env: Mapping[str, str], cwd: Path) -> "Home":
        """Return Vestal's home: the folder in the variable VESTAL_HOME, or `~/.vestal` if that is unset. A
        relative path begins at `cwd`.

        The logs are in the home's folder `logs`, except those of the default home on a Mac, which are in
        `~/Library/Logs/vestal`.
        """
        default = expand("~/.vestal", env, cwd)
        root = expand(env["VESTAL_HOME"], env, cwd) if env.get("VESTAL_HOME") else default
        on_mac = sys.platform == "darwin" and root == default
        logs = user_folder(env) / "Library" / "Logs" / "vestal" if on_mac else root / "logs"
        return cls(root, logs, default)

    @property
    def is_default(self) -> bool:
        """Return whether this is the home that is used if `$VESTAL_HOME` is unset."""
        return self.root == self.default_root

    @property
    def token(self) -> Path:
        """Return the file with the token that requests to the host agent's listener and to the orchestrator
        need.
        """
        return self.root / "token"

    @property
    def run(self) -> Path:
        """Return the folder of PID files, locks and sockets."""
        return self.root / "run"

    @property
    def cache(self) -> Path:
        """Return the folder of the prompt cache."""
        return self.root / "cache"

    @property
    def answers(self) -> Path:
        """Return the folder of the answer log: accepted requests, and what their clients were given."""
        return self.root / "answers"

    @property
    def models(self) -> Path:
        """Return the folder of installed models."""
        return self.root / "models"

    @property
    def weight_digests(self) -> Path:
        """Return the file with the digests of models' weights, so that a restart need not read all weights
        first to compute them.

        The file is not in `cache`, because users are more likely to delete that folder.
        """
        return self.root / "weight_digests.json"

    @property
    def journal_db(self) -> Path:
        """Return the SQLite file with the journal, the host agent's log of events."""
        return self.root / "journal.db"

    @property
    def recovery_lock(self) -> Path:
        """Return the file whose lock is held while services are recovered, started or stopped.

        The file is not in `run`, because users are more likely to delete that folder, and two processes could
        then hold a lock each.
        """
        return self.root / "recovery.lock"

    @property
    def label(self) -> str:
        """Return the name for the Compose project and the service manager's units.

        It is `vestal` for the default home, and `vestal-` with 8 hexadecimal digits for any other.
        """
        if self.is_default:
            return "vestal"
        return f"vestal-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"

    @property
    def format_file(self) -> Path:
        """Return the file with the number of the state folder's format."""
        return self.root / state_format.FILE_NAME

    def judge_format(self) -> state_format.FormatJudgement:
        """Read which format the folder has, and judge whether this version of Vestal can use it.

        If the disk cannot be read now, the format is unknown: the folder is neither refused nor migrated.
        """
        try:
            text = self.format_file.read_text(errors="replace")
        except FileNotFoundError:
            return state_format.judge(None, str(self.root))
        except PermissionError as error:
            return self._judge_unreadable(error)
        except OSError:
            return state_format.FormatJudgement()
        return state_format.judge(text, str(self.root))

    def _judge_unreadable(self, error: PermissionError) -> state_format.FormatJudgement:
        """Judge a state folder whose format file this user may not read: refuse the folder, and name the
        file's owner. `error` is the error of reading the file.

        If the folder itself cannot be searched, the file's owner is unknown, and the folder is not refused:
        the code that then fails to read or write in it reports the reason.
        """
        try:
            uid = self.format_file.stat().st_uid
        except OSError:
            return state_format.FormatJudgement()
        try:
            owner = pwd.getpwuid(uid).pw_name
        except KeyError:
            owner = f"the user {uid}"
        return state_format.judge_unreadable(str(self.root), owner, error.strerror or "no permission")

    def prepare(self) -> None:
        """Create the folders, which only their owner can read, and migrate a state folder of an older format.

        On a full or broken disk it is enough that the home exists; code that needs another folder tries again
        later. Raises OSError if there is no home, or if the path or its permissions are wrong.
        """
        for folder in (self.root, self.run, self.cache, self.models, self.logs):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                if error.errno not in DISK_FAULTS or not self.root.is_dir():
                    raise
        if self.judge_format().migrate_from is not None:  # from none to format 1, only the number is new
            with contextlib.suppress(OSError):  # a full disk: the next start writes it
                write_file(self.format_file, f"{state_format.CURRENT}\n")
