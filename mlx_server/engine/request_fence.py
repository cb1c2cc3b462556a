"""Confine an error in the work for one request to that request.

An engine that dies is replaced, and its requests are resumed. So an error that a request causes every time
would end one engine after another. After an error of MLX, the process must end, because its state cannot be
trusted. But an error in plain Python code, such as a parser, affects only its own request.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mlx_server.engine.errors import EngineError, InternalError
from mlx_server.engine.log import log_event

_MAX_CAUSE_CHARS, _MAX_TRACEBACK_CHARS = 300, 20_000


@contextmanager
def confined(request: str, work: str) -> Iterator[None]:
    """Convert any error in the `with` block to an EngineError, which fails only `request`.

    The block should contain all the work for one request except MLX's computations, because an error in MLX
    must end the engine. `work` describes the work for the log and the client, for example "making its
    prompt". An error that is not an EngineError is logged with its traceback.
    """
    try:
        yield
    except (EngineError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is not an Exception
        cause = f"{type(error).__name__}: {error}"[:_MAX_CAUSE_CHARS]
        trace = traceback.format_exc()[-_MAX_TRACEBACK_CHARS:]
        log_event("request_failed", cause=cause, id=request, work=work, traceback=trace)
        raise InternalError(work) from error
