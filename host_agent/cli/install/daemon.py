"""`vestal install --daemon` where this is not root: lists laid ready, and the commands that need root."""

import argparse
from collections.abc import Sequence

from host_agent.agent import single_instance
from host_agent.errors import NotInstalled
from host_agent.service_manager import launchd_by_root, unit_files
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.unit import Unit
from vestal.config import Config, ensure_token

NEEDS_ROOT_EXIT_CODE = 77
READY_MODE = 0o600


def run(options: argparse.Namespace, config: Config, own: ServiceManager, units: Sequence[Unit]) -> int:
    """`own` is where LaunchAgents of the same jobs would be: both at once would fight for the same ports."""
    if own.present():
        raise NotInstalled("LaunchAgents are installed: `vestal uninstall` removes them, then --daemon.")
    folder = config.home.root / "launchd"
    ready = [Unit(unit.name, folder / unit.path.name, unit.text) for unit in units]
    if options.dry_run:
        for unit in ready:
            print(f"would write {unit.path}:\n{unit.text}")
    else:
        config.home.prepare()
        ensure_token(config.home)
        for unit in ready:
            unit_files.write(unit, READY_MODE)
    pairs = [(source.path, unit.path) for source, unit in zip(ready, units, strict=True)]
    lines = ["vestal down"] if single_instance.running(config.home) else []
    lines += launchd_by_root.install_commands(pairs)
    print("A LaunchDaemon is root's to install. Nothing runs yet; these commands do it:\n")
    print("\n".join(f"  {line}" for line in lines))
    return 0 if options.dry_run else NEEDS_ROOT_EXIT_CODE
