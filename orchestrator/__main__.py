"""Start one of the orchestrator's processes: `python -m orchestrator [run|nightly|worker|healthcheck]`.

run          (default) the main process: the HTTP API, the tasks, the cycles and the health monitor
nightly      the service that brings the knowledge up to date each night
worker       one of several processes that only run tasks, from a queue that they share on Postgres
healthcheck  prints whether one of these processes is healthy; the exit code is 0 or 1

Only what the chosen command needs is imported.
"""

from __future__ import annotations

import sys

USAGE = "usage: python -m orchestrator [run | nightly | worker | healthcheck [nightly | worker]]"


def main(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("run", [])
    if command == "healthcheck" and rest in ([], ["nightly"], ["worker"]):
        from orchestrator.processes import healthcheck

        return healthcheck.main(*(rest or ["orchestrator"]))
    if command in ("run", "nightly", "worker") and not rest:
        return _serve(command)
    print(USAGE, file=sys.stderr)
    return 64


def _serve(command: str) -> int:
    from orchestrator.config import load
    from orchestrator.errors import CONFIG_EXIT_CODE, TRY_AGAIN_EXIT_CODE, ConfigError, DatabaseFailed
    from vestal.best_effort.output import write_line

    try:
        config = load()
        if command == "nightly":
            from orchestrator.processes.nightly import serve as serve_nightly

            return serve_nightly(config)
        if command == "worker":
            from orchestrator.processes.worker import serve as serve_worker

            return serve_worker(config)
        from orchestrator.processes.service import serve

        return serve(config)
    except ConfigError as error:
        write_line(sys.stderr, f"orchestrator: {error.message}")
        return CONFIG_EXIT_CODE
    except DatabaseFailed as error:
        write_line(sys.stderr, f"orchestrator: {error.message}")
        return TRY_AGAIN_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
