"""Print figures of the orchestrator's process, cgroup and databases as JSON. This program runs inside the
container.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

KIB = 1024


def process() -> Path:
    for name in filter(str.isdigit, os.listdir("/proc")):
        words = Path(f"/proc/{name}/cmdline").read_text().split("\0")
        if words[:3] == ["python", "-m", "orchestrator"]:
            return Path("/proc") / name
    raise SystemExit("no orchestrator runs here")


def of_process(folder: Path) -> dict[str, int]:
    lines = (line.split() for line in (folder / "status").read_text().splitlines())
    status = {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
    return {
        "rss_bytes": int(status["VmRSS"]) * KIB,
        "peak_rss_bytes": int(status["VmHWM"]) * KIB,
        "threads": int(status["Threads"]),
        "files": len(os.listdir(folder / "fd")),
    }


def began_at() -> float:
    """Return when the container's first process started, in seconds since the epoch."""
    ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    age_s = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s


def of_cgroup() -> dict[str, int | None]:
    root = Path("/sys/fs/cgroup")
    if (root / "memory.current").exists():
        events = dict(line.split() for line in (root / "memory.events").read_text().splitlines())
        peak = root / "memory.peak"
        return {
            "cgroup": 2,
            "peak_bytes": int(peak.read_text()) if peak.exists() else None,
            "oom_kills": int(events["oom_kill"]),
        }
    root /= "memory"
    control = dict(line.split() for line in (root / "memory.oom_control").read_text().splitlines())
    return {
        "cgroup": 1,
        "peak_bytes": int((root / "memory.max_usage_in_bytes").read_text()),
        "oom_kills": int(control.get("oom_kill", 0)),
    }


def of_databases() -> dict[str, Any]:
    found = {}
    for path in sorted(Path("/data").glob("*.db")):
        found[path.name] = {"bytes": size(path) + size(Path(f"{path}-wal")), "rows": rows(path)}
    return {"databases": found}


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the WAL is deleted with the last connection
        return 0


def rows(path: Path) -> dict[str, int]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    counts = {table: db.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}
    db.close()
    return {table: count for table, count in counts.items() if count}


print(json.dumps({**of_process(process()), **of_cgroup(), **of_databases(), "began_at": began_at()}))
