"""The main function of the MLX thread. It imports MLX, serves, and finally goes through the stages of a
shutdown, which `mlx_server.engine.shutdown` defines.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable

from mlx_server.engine.log import log_event
from mlx_server.engine.status import Status
from mlx_server.protocol import Event, Generate, Op
from vestal.config import Config

Emit = Callable[[list[Event]], None]

EXIT_BROKEN = 70
"""Exit code after an error that leaves the process in an unknown state. The gateway starts another engine."""


def run(
    config: Config,
    inbox: queue.SimpleQueue[Op | None],
    checks: queue.SimpleQueue[Generate],
    emit: Emit,
    status: Status,
    may_serve: threading.Event,
) -> None:
    """Import MLX, wait for `may_serve`, carry out the operations in `inbox`, and return when the engine has
    shut down because of a Shutdown operation. None in `inbox` only wakes this thread.

    `checks` receives the requests with `check_only`, which ask only whether they can be served. Another
    thread, which this function starts, answers them. Events for the gateway are passed to `emit`, and the
    engine's state is written to `status`. After an unexpected error, the process exits with EXIT_BROKEN.
    """
    try:
        _serve(config, inbox, checks, emit, status, may_serve)
    except BaseException as error:
        log_event("engine_broken", cause=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        os._exit(EXIT_BROKEN)


def _serve(
    config: Config,
    inbox: queue.SimpleQueue[Op | None],
    checks: queue.SimpleQueue[Generate],
    emit: Emit,
    status: Status,
    may_serve: threading.Event,
) -> None:
    from mlx_server.engine.models.weights import read_ahead

    is_standby = not may_serve.is_set()
    if not is_standby:
        read_ahead.start(config)

    import mlx.core as mx

    from mlx_server.engine.import_patches import import_mlx_lm, import_transformers

    import_transformers()
    import_mlx_lm()

    from mlx_server.engine import shutdown
    from mlx_server.engine.generation.prompts.templates.process import start_process_ahead
    from mlx_server.engine.layers.compiled_loops import load_compiled_loops
    from mlx_server.engine.memory import readings
    from mlx_server.engine.models import tokenizers
    from mlx_server.engine.scheduling.scheduler import Scheduler
    from mlx_server.engine.settings import EngineSettings
    from mlx_server.model_store import catalog, survey

    settings = EngineSettings.from_config(config).with_shared_weights(catalog(config))
    load_compiled_loops()
    if is_standby and not may_serve.is_set():  # a standby engine has time for this
        start_process_ahead()
        tokenizers.preload_tokenizers(
            entry.path
            for entry in catalog(config)
            if entry.kind == "generate" and entry.name in settings.preload
        )
    may_serve.wait()
    if is_standby:
        read_ahead.start(config)
    readings.set_wired_limit(settings.wired_limit_bytes)
    readings.set_cache_limit(readings.limit_bytes(settings.memory_limit_bytes))
    scheduler = Scheduler(settings, lambda: survey(config), inbox, emit, status)
    scheduler.early_checks.start(checks)
    drain_s = scheduler.run()
    shutdown.run(shutdown.stages(scheduler, drain_s, settings.persist_s))
    # A thread that ends while it has MLX streams may abort the process at exit (SIGABRT, seen on Linux).
    mx.clear_streams()
