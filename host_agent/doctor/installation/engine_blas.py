"""Diagnose a slow BLAS library on Linux: the one in MLX's wheel makes prefill some twenty times slower."""

import sys
from collections.abc import Iterator

from host_agent.doctor.evidence import http_get
from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config

NAME = "engine_blas"
SLOW_BLAS = "reference"
TIMEOUT_S = 3.0


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield one finding on the BLAS library of the running engine: a fault if the library is slow, a note if
    no engine reports its library, else `ok`.

    The engine is asked through its gateway. On systems other than Linux, the result is `ok`.
    """
    if sys.platform != "linux":
        yield Finding(NAME, "ok", "MLX uses Metal and Accelerate here.")
        return
    engine = http_get.gateway_health(config.mlx.port, TIMEOUT_S).get("engine")
    blas = engine.get("blas") if isinstance(engine, dict) else None
    yield assess_blas(None if blas is None else str(blas))


def assess_blas(blas: str | None) -> Finding:
    """Return a fault if the engine's BLAS library is the slow one of MLX's wheel, else `ok`.

    `blas` is the library's name, or None if no engine reports one; the result is then a note.
    """
    if blas is None:
        return Finding(NAME, "note", "No engine runs that could report which BLAS it uses.")
    if not blas or SLOW_BLAS in blas.lower() or blas.lower() == "none":
        remedy = "Install libopenblas0-pthread, or run `make up` again for the one that needs no root."
        return Finding(NAME, "fault", "The engine uses MLX's own reference BLAS, which is slow.", remedy)
    return Finding(NAME, "ok", f"The engine uses {blas}.")


DIAGNOSIS = Diagnosis(NAME, diagnose)
