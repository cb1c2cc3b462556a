"""`python -m mlx_server.engine --fd N`: the engine process. Its parent gives it one end of a socketpair.

The parent must start it with `mlx_server.engine_environment` for a fast BLAS on Linux. SIGUSR1 writes every
thread's stack to the log. Exit codes: 0 after a graceful shutdown, 70 broken, 78 the configuration is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import os
import signal
import sys

from mlx_server import blas
from mlx_server.engine.link import Link
from mlx_server.engine.log import log_event
from vestal.config import ConfigError, load

EXIT_CONFIG = 78


def main() -> int:
    """Run the engine; its exit code."""
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    parser = argparse.ArgumentParser(prog="python -m mlx_server.engine", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the engine's end of the socketpair")
    parser.add_argument("--spare", action="store_true", help="import, then wait for the word to begin")
    options = parser.parse_args()
    try:
        config = load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    # Models are local by now: no look at the hub, and no advice about packages we do without.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    library = blas.preload()
    log_event("spare_started" if options.spare else "engine_started", pid=os.getpid(), blas=library)
    return asyncio.run(Link(options.fd, config, library, spare=options.spare).run())


if __name__ == "__main__":
    code = main()
    if code == 0:
        log_event("server_shutdown_complete")
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's own way out runs destructors of MLX that may abort: everything is released already.
    os._exit(code)
