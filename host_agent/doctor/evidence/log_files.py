"""The ends of the logs that tell of MLX and of Ollama: our own, the Mac app's, Homebrew's, systemd's."""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host_agent.doctor.evidence.log_signs import Seen, recognize
from vestal.config import Config
from vestal.platform import commands
from vestal.platform.macos import brew

TAIL_BYTES = 512 * 1024
RECENT_S = 3600.0
LAST_LINES = 3
OLLAMA_UNIT = ("journalctl", "-u", "ollama", "-q", "--no-pager", "-n", "2000", "-o", "short-iso")


@dataclass(frozen=True)
class Log:
    """`written_at` in seconds since 1970."""

    name: str
    lines: list[str]
    written_at: float


def ends(config: Config) -> Iterator[Log]:
    """Every log that is there and may be read; of Ollama only where it is not switched off."""
    with_ollama = config.ollama.manage != "off"
    for path in [*sorted(config.home.logs.glob("*.log*")), *(_of_ollama() if with_ollama else ())]:
        try:
            yield Log(str(path), tail(path), path.stat().st_mtime)
        except OSError:
            continue
    if with_ollama and sys.platform == "linux" and shutil.which("ollama"):
        text = commands.output(*OLLAMA_UNIT, "--since", "-1h")
        if text:
            yield Log("`journalctl -u ollama`", text.splitlines(), time.time())


def _of_ollama() -> Iterator[Path]:
    yield Path.home() / ".ollama" / "logs" / "server.log"
    yield from (Path(folder) / "ollama.log" for folder in brew.LOGS)


def recent_signs(config: Config, now: float) -> Iterator[tuple[Log, list[Seen]]]:
    """What each log has meant in the last hour."""
    for log in ends(config):
        if seen := recognize(log.lines, written_at=log.written_at, since=now - RECENT_S):
            yield log, seen


def tail(path: Path) -> list[str]:
    """The last lines of a file, from a whole one on."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return text.splitlines()[1 if size > TAIL_BYTES else 0 :]


def last_words(path: Path) -> str:
    """The last lines that say something, in one."""
    try:
        said = [line.strip() for line in tail(path) if line.strip()]
    except OSError:
        return ""
    return " | ".join(line[:200] for line in said[-LAST_LINES:])
