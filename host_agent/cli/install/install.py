"""`vestal install`: install jobs of launchd or systemd that restart a failed agent, and that run a recovery
pass at boot and every 300 s.

It is safe to run again: jobs whose files are unchanged continue to run.
"""

import argparse
import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.cli.install import job_settings, launch_daemon, show, uninstall
from host_agent.cli.run.background_agent import kill_agent
from host_agent.errors import NotInstalled
from host_agent.service_manager import service_manager, unit_files
from host_agent.service_manager.jobs import AGENT, AGENT_JOBS, SERVER_ONLY_JOBS
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit_files import UnitFile
from host_agent.services.child_environment import REPO
from host_agent.watchdog.child import stop_leftover as stop_watchdog
from vestal.config import Config, ensure_token
from vestal.platform.commands import Commands, DryRunCommands

# macOS lets no job of launchd read these folders before a person has allowed it by hand.
PRIVATE_FOLDERS = ("Desktop", "Documents", "Downloads")


def run(options: argparse.Namespace, config: Config) -> int:
    if options.show:
        return show.run(options, config)
    commands = DryRunCommands() if options.dry_run else Commands()
    managers = service_manager.managers(config.home, commands)
    manager = _choose_manager(managers, options.daemon)
    if reason := manager.unavailable_reason():
        if not options.dry_run:
            raise NotInstalled(reason)
        print(f"would not be installed here: {reason}")
    jobs = SERVER_ONLY_JOBS if options.server_only else AGENT_JOBS
    settings, secrets = job_settings.gather(config, options.daemon)
    files = manager.render(jobs, settings)
    if secrets:
        print(f"left out, because the jobs' files hold no secrets (vestal.yaml may): {', '.join(secrets)}")
    if manager.needs_root:
        return launch_daemon.prepare(options, config, managers[0], files)
    if options.dry_run:
        _print_files(files)
    else:
        config.home.prepare()
        ensure_token(config.home)
    _remove_other_jobs(managers, manager, jobs, commands)
    _install(manager, jobs, files, config, commands)
    if not options.dry_run:
        _print_result(manager, options.server_only, config)
    return 0


def is_private(checkout: Path, user_folder: Path) -> bool:
    """Return whether the checkout is in a folder of the user that macOS hides from the jobs of launchd."""
    return any(checkout.is_relative_to(user_folder / folder) for folder in PRIVATE_FOLDERS)


def _choose_manager(managers: Sequence[ServiceManager], daemon: bool) -> ServiceManager:
    if user := os.environ.get("SUDO_USER"):
        raise NotInstalled(
            f"With sudo, Vestal's files would belong to root: run it as {user}. Where root is needed, "
            "`vestal install --daemon` prints the commands."
        )
    if daemon and len(managers) == 1:
        raise NotInstalled("--daemon is for macOS: with systemd, lingering starts your units at boot.")
    return managers[1] if daemon else managers[0]


def _print_files(files: Sequence[UnitFile]) -> None:
    for file in files:
        verb = "keep" if unit_files.is_current(file) else "write"
        print(f"would {verb} {file.path}:\n{file.text}")


def _remove_other_jobs(
    managers: Sequence[ServiceManager], chosen: ServiceManager, jobs: Sequence[str], commands: Commands
) -> None:
    """Remove every installed job except the `jobs` of the service manager `chosen`.

    Otherwise two agents, or an agent and a server, would compete for ports. Raises NotInstalled if a job
    cannot be removed, or if only root may remove it.
    """
    for manager in managers:
        for job in manager.installed_jobs():
            if manager is chosen and job in jobs:
                continue
            if manager.needs_root:
                path = manager.paths(job)[0]
                raise NotInstalled(f"{path} is already installed: `vestal uninstall` says how to remove it.")
            if problem := uninstall.remove(manager, job, commands):
                raise NotInstalled(f"{problem[0].upper()}{problem[1:]}.")


def _install(
    manager: ServiceManager,
    jobs: Sequence[str],
    files: Sequence[UnitFile],
    config: Config,
    commands: Commands,
) -> None:
    """Replace an agent that was started by hand, write the job files that have changed, and load every job.

    `config` names the home folder whose agent is replaced. If `commands` is for a dry run, no agent is
    replaced and no file is written; `manager`, which runs its tools with the same `commands`, then only
    prints the commands that would change something. Raises NotInstalled if a job cannot be loaded, or if an
    agent runs although `jobs` has none.
    """
    changed = {file.job for file in files if not unit_files.is_current(file)}
    if not commands.dry_run:
        _replace_running_agent(manager, jobs, config)
        for file in files:
            if file.job in changed:
                unit_files.write(file, manager.file_mode)
                print(f"wrote {file.path}")
    problem = manager.reload() if changed else ""
    for job in jobs:
        problem = problem or manager.load(job, job in changed)
    if problem:
        raise NotInstalled(f"The jobs' files are written, but not every job has started: {problem}.")


def _replace_running_agent(manager: ServiceManager, jobs: Sequence[str], config: Config) -> None:
    """End an agent that was started by hand. The service manager's agent then adopts the old agent's
    children.

    Raises NotInstalled if an agent runs but `jobs` installs none.
    """
    asyncio.run(stop_watchdog(config.home))  # the watchdog would start another agent
    identity = single_instance.running(config.home)
    if identity is None or identity.pid == manager.state(AGENT).pid:
        return
    if AGENT not in jobs:
        raise NotInstalled(f"The agent (PID {identity.pid}) runs the MLX server: `vestal down` stops both.")
    kill_agent(identity)
    asyncio.run(stop_watchdog(config.home))  # the agent had started another one
    print(f"agent: PID {identity.pid} is replaced; the services go on running")


def _print_result(manager: ServiceManager, server_only: bool, config: Config) -> None:
    if server_only:
        print(f"Installed: {manager.name} starts the MLX server and restarts it when it fails.")
    else:
        print(
            f"Installed: {manager.name} starts the agent and restarts it when it fails, and runs a recovery "
            f"pass when it starts and every {config.agent.recovery_interval_s:.0f} s."
        )
    print("`vestal install --show` shows the jobs, `vestal uninstall` removes them.")
    if isinstance(manager, Systemd):
        _enable_lingering(manager)
    elif is_private(REPO, Path.home()):
        print(
            f"Note: macOS keeps launchd's jobs out of {REPO} until you allow it. Better move the checkout "
            f"out of {', '.join(PRIVATE_FOLDERS)}, and install again."
        )


def _enable_lingering(manager: Systemd) -> None:
    if manager.is_lingering():
        return
    if manager.enable_lingering() and manager.is_lingering():
        print("Lingering is on now: your units start at boot and outlive your logout.")
    else:
        print("Note: your units end at your logout until you run `sudo loginctl enable-linger $USER`.")
