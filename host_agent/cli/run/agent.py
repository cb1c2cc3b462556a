"""`vestal agent`: run the host agent in the foreground."""

import argparse
import sys

from host_agent.agent import daemon
from host_agent.errors import AlreadyRunning
from host_agent.services.port_check import check_ports
from host_agent.upgrade import check
from host_agent.watchdog.child import AgentRestarter
from vestal.best_effort import output
from vestal.config import Config


def run(options: argparse.Namespace, config: Config) -> int:
    """Run the agent until it is stopped, and return the exit code. With `--check`, only check that it could
    run.

    With `--managed`, the exit code is 0 if another agent runs, because launchd would restart a failed job
    every 10 s.
    """
    output.protect("agent")
    if options.check:
        check.import_all()
        check_ports(config)
        output.write_line(sys.stdout, check.report(config))
        return 0
    try:
        return daemon.serve(config, restarter=_restarter(options))
    except AlreadyRunning as error:
        if not options.managed:
            raise
        output.write_line(sys.stdout, f"vestal: {error}")
        return 0


def _restarter(options: argparse.Namespace) -> AgentRestarter:
    if options.managed:
        return AgentRestarter.SERVICE_MANAGER
    return AgentRestarter.WATCHDOG if options.with_watchdog else AgentRestarter.NOBODY
