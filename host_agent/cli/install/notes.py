"""What `vestal install` says when it is done, and what a person should know about this machine."""

from collections.abc import Sequence
from pathlib import Path

from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.systemd import Systemd
from host_agent.services.child_environment import REPO
from vestal.config import Config

# macOS lets no job of launchd's look into these before somebody has allowed it by hand.
PRIVATE_FOLDERS = ("Desktop", "Documents", "Downloads")


def left_out(secrets: Sequence[str]) -> None:
    if secrets:
        print(f"left out, since units have no secrets (vestal.yaml may): {', '.join(secrets)}")


def installed(manager: ServiceManager, server_only: bool, config: Config) -> None:
    if server_only:
        print(f"Installed: {manager.name} starts the MLX server, and keeps it alive.")
    else:
        each = f"{config.agent.recovery_interval_s:.0f} s"
        print(
            f"Installed: {manager.name} starts the agent and keeps it alive, "
            f"and runs a recovery pass at its start and every {each}."
        )
    print("`vestal install --show` shows it, `vestal uninstall` removes it.")
    if isinstance(manager, Systemd):
        _linger(manager)
    elif is_private(REPO, Path.home()):
        print(
            f"Note: macOS keeps launchd's jobs out of {REPO} until you allow it: better move the checkout "
            f"out of {', '.join(PRIVATE_FOLDERS)}, and install again."
        )


def is_private(checkout: Path, user_folder: Path) -> bool:
    return any(checkout.is_relative_to(user_folder / folder) for folder in PRIVATE_FOLDERS)


def _linger(manager: Systemd) -> None:
    if manager.lingers():
        return
    if manager.linger() and manager.lingers():
        print("Lingering is on now: your units start at boot, and outlive your logout.")
    else:
        print("Note: your units end at your logout, until `sudo loginctl enable-linger $USER` is run.")
