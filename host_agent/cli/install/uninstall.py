"""`vestal uninstall`: stop the installed jobs gracefully, and delete their files."""

import argparse

from host_agent.cli.install import launch_daemon, unfinished
from host_agent.service_manager import service_manager
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.systemd import Systemd
from vestal.config import Config
from vestal.platform.commands import Commands, DryRunCommands


def run(options: argparse.Namespace, config: Config) -> int:
    commands = DryRunCommands() if options.dry_run else Commands()
    managers = service_manager.managers(config.home, commands)
    found = [manager for manager in managers if manager.installed_jobs()]
    if not found:
        print("Nothing is installed.")
        return 0
    exit_code = max(_remove_all(manager, commands) for manager in found)
    if exit_code == 0 and not options.dry_run:
        unfinished.complete(config.home)
    return exit_code


def remove(manager: ServiceManager, job: str, commands: Commands) -> str:
    """Stop a job and delete its files. If `commands.dry_run` is True, only print what would be done.

    If the job cannot be stopped, keep the files and return the problem in words; else return an empty text.
    """
    if problem := manager.unload(job):
        return f"{job} is not removed: {problem}"
    for path in manager.paths(job):
        if commands.dry_run:
            print(f"would remove {path}")
        else:
            path.unlink(missing_ok=True)
            print(f"removed {path}")
    return ""


def _remove_all(manager: ServiceManager, commands: Commands) -> int:
    """Remove every job of one service manager, the recovery job before the agent. Return 1 if a job could not
    be removed, else 0.

    If only root may remove the jobs, print the commands that do it instead, and return NEEDS_ROOT_EXIT_CODE.
    """
    if manager.needs_root:
        paths = [path for job in manager.installed_jobs() for path in manager.paths(job)]
        print("Only root may remove a LaunchDaemon. These commands do it:\n")
        print("\n".join(f"  {line}" for line in launch_daemon.uninstall_commands(paths)))
        return launch_daemon.NEEDS_ROOT_EXIT_CODE
    problems = [remove(manager, job, commands) for job in manager.installed_jobs()[::-1]]
    for problem in filter(None, problems):
        print(problem)
    manager.reload()
    if isinstance(manager, Systemd) and manager.is_lingering():
        print("Lingering stays on for your other units: `loginctl disable-linger` switches it off.")
    return 1 if any(problems) else 0
