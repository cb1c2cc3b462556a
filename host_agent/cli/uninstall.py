"""`vestal uninstall`: removes what `vestal install` wrote. What runs now is left to `vestal down`."""

import argparse

from host_agent.cli import install
from host_agent.config import Config
from host_agent.host import service_manager
from host_agent.services.child_environment import REPO


def run(options: argparse.Namespace, config: Config) -> int:
    units = service_manager.units(config.home, install.environment(config), REPO)
    present = [unit.path for unit in units if unit.path.exists()]
    if not present:
        print("Nothing is installed.")
        return 0
    for command in service_manager.commands(config.home, install=False):
        if options.dry_run:
            print(f"would run {' '.join(command)}")
        else:
            service_manager.run(command)
    for path in present:
        if options.dry_run:
            print(f"would remove {path}")
        else:
            path.unlink(missing_ok=True)
            print(f"removed {path}")
    return 0
