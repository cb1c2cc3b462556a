"""`vestal install`: install jobs of launchd or systemd that restart a failed agent, and that run a recovery
pass at boot and every 300 s.

It is safe to run again: jobs whose files are unchanged continue to run, and an installation that failed or
was interrupted is completed.
"""

import argparse
import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.cli.install import job_settings, launch_daemon, show, unfinished, uninstall
from host_agent.cli.run.background_agent import ensure_running, kill_agent
from host_agent.errors import HostAgentError, NotInstalled
from host_agent.service_manager import service_manager, unit_files
from host_agent.service_manager.jobs import AGENT, AGENT_JOBS, SERVER_ONLY_JOBS
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit_files import UnitFile
from host_agent.services.child_environment import REPO
from host_agent.watchdog.child import stop_leftover as stop_watchdog
from vestal.config import Config, Home, ensure_token
from vestal.platform.commands import Commands, DryRunCommands
from vestal.supervision import ProcessIdentity

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
        if "HF_TOKEN" in secrets:
            print("To keep HF_TOKEN for the jobs, log in with `hf auth login`.")
    if manager.needs_root:
        return launch_daemon.prepare(options, config, managers[0], files)
    if options.dry_run:
        _print_files(files)
    else:
        config.home.prepare()
        ensure_token(config.home)
    _refuse_jobs_of_root(managers, manager)
    _install(managers, manager, jobs, files, config, commands)
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


def _refuse_jobs_of_root(managers: Sequence[ServiceManager], chosen: ServiceManager) -> None:
    """Raise NotInstalled if a manager other than `chosen` has an installed job that only root may remove."""
    for manager in managers:
        if manager is not chosen and manager.needs_root and (installed := manager.installed_jobs()):
            path = manager.paths(installed[0])[0]
            raise NotInstalled(f"{path} is already installed: `vestal uninstall` says how to remove it.")


def _install(
    managers: Sequence[ServiceManager],
    manager: ServiceManager,
    jobs: Sequence[str],
    files: Sequence[UnitFile],
    config: Config,
    commands: Commands,
) -> None:
    """Write the job files that have changed, and load every job. Before the jobs are loaded, remove the other
    jobs of `managers`, and end an agent that was started by hand. Both happen only after the files are
    written and the service manager can load jobs.

    `config` names the home folder whose agent is replaced. If `commands` is for a dry run, no agent is
    replaced and no file is written; `manager`, which runs its tools with the same `commands`, then only
    prints the commands that would change something.

    Raises NotInstalled if a job cannot be loaded, or if an agent runs although `jobs` has no job for the
    agent. If the agent's job cannot be loaded and an agent ran before, an agent is started in the background
    before NotInstalled is raised.
    """
    changed = _changed_jobs(files, config.home)
    ran = None if commands.dry_run else single_instance.running(config.home)
    if ran and AGENT not in jobs and ran.pid != manager.state(AGENT).pid:
        raise _agent_runs(ran)
    if not commands.dry_run and changed:
        _write(files, changed, manager, config.home)
    if problem := manager.reload() if changed else "":
        raise _not_started([problem])
    _remove_other_jobs(managers, manager, jobs, commands)
    if not commands.dry_run:
        if reason := manager.no_session_reason():
            unfinished.complete(config.home)  # the next login loads the files as they are
            raise _not_started([reason])
        _replace_running_agent(manager, jobs, config)
    # The agent comes first: a recovery pass would start one. A job's problem does not keep the others out.
    problems = {job: problem for job in jobs if (problem := manager.load(job, job in changed))}
    if problems:
        restarted = _start_agent_again(config) if ran and AGENT in problems else ""
        raise _not_started(problems.values(), restarted)
    if not commands.dry_run:
        unfinished.complete(config.home)


def _changed_jobs(files: Sequence[UnitFile], home: Home) -> set[str]:
    """Return the jobs that have to be loaded anew: those with a changed file, or all jobs if the last
    installation was not completed.
    """
    was_interrupted = unfinished.exists(home)
    return {file.job for file in files if was_interrupted or not unit_files.is_current(file)}


def _write(files: Sequence[UnitFile], changed: set[str], manager: ServiceManager, home: Home) -> None:
    """Write the files of the jobs in `changed`, and remember that these jobs are not loaded yet."""
    unfinished.begin(home)
    for file in files:
        if file.job in changed:
            unit_files.write(file, manager.file_mode)
            print(f"wrote {file.path}")


def _agent_runs(identity: ProcessIdentity) -> NotInstalled:
    return NotInstalled(f"The agent (PID {identity.pid}) runs the MLX server: `vestal down` stops both.")


def _not_started(problems: Iterable[str], ending: str = "") -> NotInstalled:
    reasons = "; ".join(dict.fromkeys(problems))  # a missing session has the same sentence for each job
    return NotInstalled(f"The jobs' files are written, but not every job has started: {reasons}.{ending}")


def _remove_other_jobs(
    managers: Sequence[ServiceManager], chosen: ServiceManager, jobs: Sequence[str], commands: Commands
) -> None:
    """Remove every installed job except the `jobs` of the service manager `chosen`.

    Otherwise two agents, or an agent and a server, would compete for ports. Raises NotInstalled if a job
    cannot be removed.
    """
    for manager in managers:
        for job in manager.installed_jobs()[::-1]:  # the recovery job before the agent, which it would start
            if manager is chosen and job in jobs:
                continue
            if problem := uninstall.remove(manager, job, commands):
                raise NotInstalled(f"{problem[0].upper()}{problem[1:]}.")


def _replace_running_agent(manager: ServiceManager, jobs: Sequence[str], config: Config) -> None:
    """End an agent that was started by hand. The agent that the service manager starts adopts the children of
    the ended one. Raises NotInstalled if an agent runs although `jobs` has no job for the agent: a recovery
    pass may have started it since the installation began.
    """
    asyncio.run(stop_watchdog(config.home))  # the watchdog would start another agent
    identity = single_instance.running(config.home)
    if identity is None or identity.pid == manager.state(AGENT).pid:
        return
    if AGENT not in jobs:
        raise _agent_runs(identity)
    kill_agent(identity)
    asyncio.run(stop_watchdog(config.home))  # the agent had started another one
    print(f"agent: PID {identity.pid} is replaced; the services go on running")


def _start_agent_again(config: Config) -> str:
    """Start an agent in place of the one that this installation has ended. Return a sentence that says that
    an agent was started, or why none was; it begins with a space, because it follows an error message.
    """
    try:
        ensure_running(config)
    except HostAgentError as error:
        return f" {error}"
    return " The agent was started again."


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
