"""Read the last lines of the logs about MLX and Ollama: Vestal's own, and those of Ollama's app, Homebrew and
systemd.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from host_agent.doctor.evidence.log_patterns import LogMatch, find_matches
from vestal.config import Config
from vestal.platform import commands
from vestal.platform.macos import brew

TAIL_BYTES = 512 * 1024
RECENT_S = 3600.0
LAST_LINES = 3
MAX_LINE_CHARS = 200
OLLAMA_UNIT_LOG = ("journalctl", "-u", "ollama", "-q", "--no-pager", "-n", "2000", "-o", "short-iso")


@dataclass(frozen=True)
class LogTail:
    """The last lines of a log. `written_at` is when the log was last written, in seconds since 1970."""

    name: str
    lines: list[str]
    written_at: float


def log_tails(config: Config) -> Iterator[LogTail]:
    """Yield the last lines of every log that can be read. Ollama's logs are skipped if `ollama.manage` is
    off.
    """
    with_ollama = config.ollama.manage != "off"
    for path in [*sorted(config.home.logs.glob("*.log*")), *(_ollama_logs() if with_ollama else ())]:
        try:
            yield LogTail(str(path), tail(path), path.stat().st_mtime)
        except OSError:
            continue
    if with_ollama and sys.platform == "linux" and shutil.which("ollama"):
        text = commands.output(*OLLAMA_UNIT_LOG, "--since", "-1h")
        if text:
            yield LogTail("`journalctl -u ollama`", text.splitlines(), time.time())


def recent_matches(config: Config, now: float) -> Iterator[tuple[LogTail, list[LogMatch]]]:
    """Yield each log in which lines of the last hour name a cause of trouble, together with these lines.

    `now` is in seconds since 1970.
    """
    for log in log_tails(config):
        if matches := find_matches(log.lines, written_at=log.written_at, since=now - RECENT_S):
            yield log, matches


def tail(path: Path) -> list[str]:
    """Return the complete lines in the last TAIL_BYTES of a file. Raises OSError if the file cannot be
    read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return text.splitlines()[1 if size > TAIL_BYTES else 0 :]


def last_lines(path: Path) -> str:
    """Return the last LAST_LINES lines that are not blank, joined by ` | `; empty if the file cannot be
    read.
    """
    try:
        lines = [line.strip() for line in tail(path) if line.strip()]
    except OSError:
        return ""
    return " | ".join(line[:MAX_LINE_CHARS] for line in lines[-LAST_LINES:])


def _ollama_logs() -> Iterator[Path]:
    yield Path.home() / ".ollama" / "logs" / "server.log"
    yield from (Path(folder) / "ollama.log" for folder in brew.LOGS)
