"""`python -m mlx_server.engine --fd N`: the engine process. Its parent keeps the other end of socket N.

The parent must set the environment of `mlx_server.engine_environment`, for a fast BLAS on Linux. SIGUSR1
writes the stack of every thread to the log. Exit codes: 0 after a graceful shutdown, 70 after an unexpected
error, 75 if the configuration cannot be read now, 76 if the gateway has another version of the protocol, 78
if the configuration is wrong.
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
from mlx_server.protocol.digest import EXIT_OTHER_PROTOCOL, is_other_protocol
from vestal.best_effort import output
from vestal.config import ConfigError
from vestal.config.handed_down import load_handed_down

EXIT_BUSY, EXIT_CONFIG = 75, 78
SWITCH_S = 0.0005
"""How long one thread may run Python code while another one waits to do so. For Python's 5 ms, the main
thread, which sends the tokens, would wait for the MLX thread."""
OTHER_PROTOCOL = (
    "the installed engine is of another version than the gateway that started it: run `vestal up`, or start "
    "`vestal server` again"
)


def main() -> int:
    """Run the engine. Return the exit code."""
    output.protect("mlx_engine")
    sys.setswitchinterval(SWITCH_S)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    parser = argparse.ArgumentParser(prog="python -m mlx_server.engine", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the engine's end of the socketpair")
    parser.add_argument(
        "--standby", action="store_true", help="import MLX, then wait for the `begin` operation"
    )
    options = parser.parse_args()
    if is_other_protocol():
        output.write_line(sys.stderr, OTHER_PROTOCOL)
        return EXIT_OTHER_PROTOCOL
    try:
        config = load_handed_down()  # the gateway's settings, even if the configuration file has changed
    except ConfigError as error:
        output.write_line(sys.stderr, str(error))
        return EXIT_CONFIG
    except OSError as error:
        output.write_line(sys.stderr, f"The configuration cannot be read: {error}")
        return EXIT_BUSY
    # The models are local: nothing may ask the hub, and advice about missing packages is of no interest.
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    library = blas.preload()
    log_event("spare_started" if options.standby else "engine_started", pid=os.getpid(), blas=library)
    return asyncio.run(Link(options.fd, config, library, standby=options.standby).run())


if __name__ == "__main__":
    code = main()
    if code == 0:
        log_event("server_shutdown_complete")
    sys.stdout.flush()
    sys.stderr.flush()
    # A normal exit of the interpreter would run destructors of MLX that may abort. Everything is released.
    os._exit(code)
