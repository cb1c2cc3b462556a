"""Where Vestal keeps its state: `$VESTAL_HOME`, `~/.vestal` by default."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


def user_folder(env: Mapping[str, str]) -> Path:
    """The user's own folder: `$HOME`, else what the system says."""
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def expand(path: str | Path, env: Mapping[str, str], base: Path) -> Path:
    """An absolute path: `~` is the user's folder, anything relative starts at `base`."""
    text = str(path)
    if text == "~" or text.startswith("~/"):
        return user_folder(env) / text[2:]
    return (base / text).absolute()


@dataclass(frozen=True)
class Home:
    """The folders and files of one installation. Two homes are two installations."""

    root: Path
    logs: Path
    default_root: Path

    @classmethod
    def find(cls, env: Mapping[str, str], cwd: Path) -> "Home":
        """`$VESTAL_HOME`, or `~/.vestal`; its logs are where the platform's users look for them."""
        default = user_folder(env) / ".vestal"
        root = expand(env["VESTAL_HOME"], env, cwd) if env.get("VESTAL_HOME") else default
        on_mac = sys.platform == "darwin" and root == default
        logs = user_folder(env) / "Library" / "Logs" / "vestal" if on_mac else root / "logs"
        return cls(root, logs, default)

    @property
    def is_default(self) -> bool:
        return self.root == self.default_root

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def journal_db(self) -> Path:
        return self.root / "journal.db"

    @property
    def orchestrator_db(self) -> Path:
        return self.root / "orchestrator.db"

    @property
    def label(self) -> str:
        """`vestal` for the default home, else `vestal-` and 8 hex digits: compose project, unit names."""
        return (
            "vestal"
            if self.is_default
            else f"vestal-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"
        )

    def prepare(self) -> None:
        """Make the folders, readable by their owner alone."""
        for folder in (self.root, self.run, self.cache, self.models, self.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
