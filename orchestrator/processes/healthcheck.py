"""Report whether a container's process is healthy, as its HEALTHCHECK. Exit code 0: healthy, 1: not.

Only the standard library is imported, so that the program starts fast.
"""

from __future__ import annotations

import http.client
import os
import sys
import tempfile
import time
from pathlib import Path

HEARTBEAT_NAME = "nightly.heartbeat"
WORKER_HEARTBEAT_NAME = "vestal-worker.heartbeat"  # not in the home, which several workers may share
HEARTBEAT_STALE_S = 60.0
TIMEOUT_S = 3.0


def main(service: str) -> int:
    """Print whether `service` (orchestrator, nightly or worker) is healthy. Return the exit code, 0 or 1."""
    problem = (
        _orchestrator_problem() if service == "orchestrator" else _stale_heartbeat(_heartbeat_of(service))
    )
    print(problem or "healthy", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


def _orchestrator_problem() -> str:
    port = int(os.environ.get("VESTAL_ORCHESTRATOR_PORT") or 8088)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        reply = connection.getresponse()
        body = reply.read(2048).decode(errors="replace")
    except OSError as error:
        return f"nothing answers on port {port}: {error}"
    finally:
        connection.close()
    return "" if reply.status == 200 else f"/health says {reply.status}: {body}"


def _heartbeat_of(service: str) -> Path:
    if service == "worker":
        return Path(tempfile.gettempdir()) / WORKER_HEARTBEAT_NAME
    return Path(os.environ.get("VESTAL_HOME") or Path.home() / ".vestal") / HEARTBEAT_NAME


def _stale_heartbeat(path: Path) -> str:
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError as error:
        return f"no heartbeat: {error}"
    return "" if age_s < HEARTBEAT_STALE_S else f"the last heartbeat is {age_s:.0f} s old"
