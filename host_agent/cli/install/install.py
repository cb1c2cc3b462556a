"""`vestal install`: the agent kept alive, and a recovery pass at boot and every 300 s. Safe to run again."""

import argparse
import os
from collections.abc import Sequence

from host_agent.agent import single_instance
from host_agent.cli.install import daemon, job_settings, notes, show, uninstall
from host_agent.cli.run.background_agent import hand_over
from host_agent.errors import NotInstalled
from host_agent.service_manager import service_manager, unit_files
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.unit import AGENT, SERVER_ALONE, WITH_AGENT, Unit
from vestal.config import Config, ensure_token
from vestal.platform.commands import Commands, DryRunCommands


def run(options: argparse.Namespace, config: Config) -> int:
    if options.show:
        return show.run(options, config)
    commands = DryRunCommands() if options.dry_run else Commands()
    managers = service_manager.managers(config.home, commands)
    manager = _chosen(managers, options.daemon)
    if refusal := manager.refusal():
        if not options.dry_run:
            raise NotInstalled(refusal)
        print(f"would not be installed here: {refusal}")
    names = SERVER_ALONE if options.server_only else WITH_AGENT
    told, secrets = job_settings.told(config, options.daemon)
    units = manager.units(names, told)
    notes.left_out(secrets)
    if manager.needs_root:
        return daemon.run(options, config, managers[0], units)
    if options.dry_run:
        _show(units)
    else:
        config.home.prepare()
        ensure_token(config.home)
    _remove_others(managers, manager, names, commands)
    _install(manager, names, units, config, commands)
    if not options.dry_run:
        notes.installed(manager, options.server_only, config)
    return 0


def _chosen(managers: Sequence[ServiceManager], daemon: bool) -> ServiceManager:
    if sudo := os.environ.get("SUDO_USER"):
        raise NotInstalled(
            f"sudo would give Vestal's files to root: run it as {sudo}; where root is needed, "
            "`vestal install --daemon` prints the commands."
        )
    if daemon and len(managers) == 1:
        raise NotInstalled("--daemon is for macOS: with systemd, lingering starts your units at boot.")
    return managers[1] if daemon else managers[0]


def _install(
    manager: ServiceManager, names: Sequence[str], units: Sequence[Unit], config: Config, commands: Commands
) -> None:
    changed = {unit.name for unit in units if not unit_files.is_written(unit)}
    if not commands.dry_run:
        _take_over(manager, names, config)
        for unit in units:
            if unit.name in changed:
                unit_files.write(unit, manager.mode)
    problem = manager.reload() if changed else ""
    for name in names:
        problem = problem or manager.load(name, name in changed)
    if problem:
        raise NotInstalled(f"The units are written, but not all is started: {problem}.")


def _take_over(manager: ServiceManager, names: Sequence[str], config: Config) -> None:
    """An agent that was started by hand makes room for the one that is kept alive, which adopts its work."""
    identity = single_instance.running(config.home)
    if identity is None or identity.pid == manager.state(AGENT).pid:
        return
    if AGENT not in names:
        raise NotInstalled(f"The agent (PID {identity.pid}) keeps the MLX server: `vestal down` ends both.")
    hand_over(identity)
    print(f"agent: PID {identity.pid} makes room; what it looked after goes on")


def _remove_others(
    managers: Sequence[ServiceManager], chosen: ServiceManager, names: Sequence[str], commands: Commands
) -> None:
    """Two agents, or an agent and a server alone, would fight for the same ports."""
    for manager in managers:
        for name in manager.present():
            if manager is chosen and name in names:
                continue
            if manager.needs_root:
                path = manager.paths(name)[0]
                raise NotInstalled(f"{path} is installed already: `vestal uninstall` tells how to remove it.")
            if problem := uninstall.remove(manager, name, commands):
                raise NotInstalled(f"{problem[0].upper()}{problem[1:]}.")


def _show(units: Sequence[Unit]) -> None:
    for unit in units:
        verb = "keep" if unit_files.is_written(unit) else "write"
        print(f"would {verb} {unit.path}:\n{unit.text}")
