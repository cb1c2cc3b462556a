"""`vestal uninstall`: stops what `vestal install` started, in order, and removes what it wrote."""

import argparse

from host_agent.cli.install.daemon import NEEDS_ROOT_EXIT_CODE
from host_agent.service_manager import launchd_by_root, service_manager
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.systemd import Systemd
from vestal.config import Config
from vestal.platform.commands import Commands, DryRunCommands


def run(options: argparse.Namespace, config: Config) -> int:
    commands = DryRunCommands() if options.dry_run else Commands()
    managers = service_manager.managers(config.home, commands)
    found = [manager for manager in managers if manager.present()]
    if not found:
        print("Nothing is installed.")
        return 0
    return max(_remove_all(manager, commands) for manager in found)


def remove(manager: ServiceManager, name: str, commands: Commands) -> str:
    """Stop a job and remove its files; the problem, and then they stay."""
    if problem := manager.unload(name):
        return f"{name} is not removed: {problem}"
    for path in manager.paths(name):
        if commands.dry_run:
            print(f"would remove {path}")
        else:
            path.unlink(missing_ok=True)
            print(f"removed {path}")
    return ""


def _remove_all(manager: ServiceManager, commands: Commands) -> int:
    if manager.needs_root:
        paths = [path for name in manager.present() for path in manager.paths(name)]
        print("A LaunchDaemon is root's to remove. These commands do it:\n")
        print("\n".join(f"  {line}" for line in launchd_by_root.uninstall_commands(paths)))
        return NEEDS_ROOT_EXIT_CODE
    problems = [remove(manager, name, commands) for name in manager.present()[::-1]]
    for problem in filter(None, problems):
        print(problem)
    manager.reload()
    if isinstance(manager, Systemd) and manager.lingers():
        print("Lingering stays on, for other units of yours: `loginctl disable-linger` ends it.")
    return 1 if any(problems) else 0
