"""On Linux the engine's speed is its BLAS: the one in MLX's wheel is some twenty times slower at prefill."""

import http.client
import json
import sys
from collections.abc import Iterator

from host_agent.doctor.finding import Finding
from vestal.config import Config

NAME = "engine_blas"
SLOW = "reference"


def look(config: Config) -> Iterator[Finding]:
    """What the running engine says it uses."""
    if sys.platform != "linux":
        yield Finding(NAME, "ok", "MLX uses Metal and Accelerate here")
        return
    used = _told_by_engine(config)
    if used is None:
        yield Finding(NAME, "note", "no engine runs that could say which BLAS it uses")
    elif not used or SLOW in used.lower() or used.lower() == "none":
        remedy = "install libopenblas0-pthread, or run `make up` again for the one that needs no root"
        yield Finding(NAME, "fault", "the engine uses MLX's own reference BLAS, which is slow", remedy)
    else:
        yield Finding(NAME, "ok", f"the engine uses {used}")


def _told_by_engine(config: Config) -> str | None:
    connection = http.client.HTTPConnection("127.0.0.1", config.mlx.port, timeout=3)
    try:
        connection.request("GET", "/health")
        engine = json.loads(connection.getresponse().read()).get("engine") or {}
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return None
    finally:
        connection.close()
    return str(engine["blas"]) if engine.get("blas") is not None else None
