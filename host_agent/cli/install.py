"""`vestal install`: the agent kept alive, and a recovery pass at boot and every 300 s. Safe to run again."""

import argparse
import os
import pwd
import shlex
from collections.abc import Sequence
from pathlib import Path

from host_agent import single_instance
from host_agent.cli import install_environment, install_show, uninstall
from host_agent.cli.background_agent import hand_over
from host_agent.config import Config, ensure_token
from host_agent.errors import HostAgentError
from host_agent.host import launchd_by_root, service_manager
from host_agent.host.commands import Commands, Shown
from host_agent.host.service_manager import ServiceManager
from host_agent.host.systemd import Systemd
from host_agent.host.unit import AGENT, SERVER_ALONE, WITH_AGENT, Told, Unit
from host_agent.services.child_environment import REPO, common
from host_agent.services.docker_endpoint import EXTRA_FOLDERS
from host_agent.services.mlx import SIX_STAGES_S

STOP_AT_LEAST_S, SPARE_S = 120, 30
NEEDS_ROOT_EXIT_CODE = 77
# macOS lets no job of launchd's look into these before somebody has allowed it by hand.
PRIVATE_FOLDERS = ("Desktop", "Documents", "Downloads")


class NotInstalled(HostAgentError):
    code = "not_installed"
    exit_code = 69


def run(options: argparse.Namespace, config: Config) -> int:
    if options.show:
        return install_show.run(options, config)
    commands = Shown() if options.dry_run else Commands()
    managers = service_manager.managers(config.home, commands)
    manager = _chosen(managers, options.daemon)
    told, secrets = _told(config, options.daemon)
    names = SERVER_ALONE if options.server_only else WITH_AGENT
    units = manager.units(names, told)
    if secrets:
        print(f"left out, since no secret belongs in a unit: {', '.join(secrets)} (vestal.yaml can have them)")
    if options.dry_run:
        _show(units)
    if manager.needs_root:
        return 0 if options.dry_run else _for_root(units, config)
    if not options.dry_run:
        config.home.prepare()
        ensure_token(config.home)
    _remove_others(managers, manager, names, commands)
    _install(manager, names, units, config, commands)
    if not options.dry_run:
        _say(manager, options, config)
    return 0


def stop_within_s(config: Config) -> int:
    """Longer than the ordered stop: drain, six stages, orchestrators."""
    ordered_s = config.mlx.drain_s + SIX_STAGES_S + 4 * config.supervision.stop_s
    return max(STOP_AT_LEAST_S, int(ordered_s) + SPARE_S)


def _chosen(managers: Sequence[ServiceManager], daemon: bool) -> ServiceManager:
    if sudo := os.environ.get("SUDO_USER"):
        raise NotInstalled(
            f"sudo would give Vestal's files to root: run it as {sudo}; where root is needed, "
            "`vestal install --daemon` prints the commands."
        )
    if daemon and len(managers) == 1:
        raise NotInstalled("--daemon is for macOS: with systemd, lingering starts your units at boot.")
    chosen = managers[1] if daemon else managers[0]
    if refusal := chosen.refusal():
        raise NotInstalled(f"{refusal[0].upper()}{refusal[1:]}.")
    return chosen


def _told(config: Config, daemon: bool) -> tuple[Told, list[str]]:
    """What the units are made from, and the names of the secrets that are left out."""
    settings, secrets = install_environment.settings(os.environ)
    environment = {"PATH": install_environment.search_path(os.environ, EXTRA_FOLDERS), **settings}
    if daemon:  # the system's domain gives none
        user = pwd.getpwuid(os.getuid())
        environment |= {"HOME": os.environ.get("HOME") or user.pw_dir, "USER": user.pw_name}
    told = Told(
        {**environment, **common(config)},
        REPO,
        service_manager.python(),
        stop_within_s(config),
        int(config.agent.recovery_interval_s),
    )
    return told, secrets


def _install(
    manager: ServiceManager, names: Sequence[str], units: Sequence[Unit], config: Config, commands: Commands
) -> None:
    changed = {unit.name for unit in units if not _is_written(unit)}
    if not commands.dry:
        for unit in units:
            if unit.name in changed:
                write(unit, manager.mode)
        _take_over(manager, names, config)
    problem = manager.reload() if changed else ""
    for name in names:
        problem = problem or manager.load(name, name in changed)
    if problem:
        raise NotInstalled(f"The units are written, but not all is started: {problem}.")


def _take_over(manager: ServiceManager, names: Sequence[str], config: Config) -> None:
    """An agent that was started by hand makes room for the one that is kept alive, which adopts its services."""
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
                paths = ", ".join(str(path) for path in manager.paths(name))
                raise NotInstalled(f"{paths} is installed already: `vestal uninstall` removes it.")
            if problem := uninstall.remove(manager, name, commands):
                raise NotInstalled(f"{problem}.")


def _is_written(unit: Unit) -> bool:
    try:
        return unit.path.read_text() == unit.text
    except OSError:
        return False


def write(unit: Unit, mode: int) -> None:
    """The file appears whole, and never with looser rights."""
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    temporary: Path = unit.path.with_name(f".{unit.path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(unit.text)
    temporary.replace(unit.path)
    print(f"wrote {unit.path}")


def _for_root(units: Sequence[Unit], config: Config) -> int:
    """The lists are laid ready, and the commands shown that only root may run."""
    config.home.prepare()
    ensure_token(config.home)
    staged = [Unit(unit.name, config.home.root / "launchd" / unit.path.name, unit.text) for unit in units]
    for unit in staged:
        write(unit, 0o600)
    pairs = [(ready.path, unit.path) for ready, unit in zip(staged, units, strict=True)]
    print("A LaunchDaemon is root's to install. Nothing runs yet; these commands install it:\n")
    print("\n".join(f"  {line}" for line in launchd_by_root.install_commands(pairs)))
    return NEEDS_ROOT_EXIT_CODE


def _show(units: Sequence[Unit]) -> None:
    for unit in units:
        print(f"would {'keep' if _is_written(unit) else 'write'} {unit.path}:\n{unit.text}")


def _say(manager: ServiceManager, options: argparse.Namespace, config: Config) -> None:
    what = "the MLX server" if options.server_only else "the agent"
    each = "" if options.server_only else (
        f"; a recovery pass runs at boot and every {config.agent.recovery_interval_s:.0f} s"
    )
    print(f"Installed: {manager.name} starts {what} and keeps it alive{each}.")
    print("`vestal install --show` shows it, `vestal uninstall` removes it.")
    if isinstance(manager, Systemd):
        _linger(manager)
    elif any(REPO.is_relative_to(Path.home() / folder) for folder in PRIVATE_FOLDERS):
        print(
            f"Note: macOS keeps launchd's jobs out of {shlex.quote(str(REPO))} until you allow it: "
            "better move the checkout out of Desktop, Documents and Downloads, and install again."
        )


def _linger(manager: Systemd) -> None:
    if manager.lingers():
        return
    if manager.linger() and manager.lingers():
        print("Lingering is on now: your units start at boot and outlive your logout.")
    else:
        print("Note: your units end at your logout, until `sudo loginctl enable-linger $USER` is run.")
