"""Prepare the files of LaunchDaemons, and print the sudo commands that install them, since only root may do
that.
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from host_agent.agent import single_instance
from host_agent.errors import NotInstalled
from host_agent.service_manager import unit_files
from host_agent.service_manager.service_manager import ServiceManager
from host_agent.service_manager.unit_files import UnitFile
from vestal.config import Config, ensure_token

NEEDS_ROOT_EXIT_CODE = 77
PREPARED_MODE = 0o600


def prepare(
    options: argparse.Namespace, config: Config, launch_agents: ServiceManager, files: Sequence[UnitFile]
) -> int:
    """Write the property lists `files` of LaunchDaemons into the home folder, or only print them in a dry
    run, and print the commands with which root installs them. Return NEEDS_ROOT_EXIT_CODE, because nothing is
    installed until the user runs these commands; in a dry run, return 0.

    Raises NotInstalled if LaunchAgents are installed, because they would use the same ports.
    """
    if launch_agents.installed_jobs():
        raise NotInstalled("LaunchAgents are installed: run `vestal uninstall` first, then use --daemon.")
    folder = config.home.root / "launchd"
    prepared = [UnitFile(file.job, folder / file.path.name, file.text) for file in files]
    if options.dry_run:
        for file in prepared:
            print(f"would write {file.path}:\n{file.text}")
    else:
        config.home.prepare()
        ensure_token(config.home)
        for file in prepared:
            unit_files.write(file, PREPARED_MODE)
            print(f"wrote {file.path}")
    pairs = [(source.path, target.path) for source, target in zip(prepared, files, strict=True)]
    lines = ["vestal down"] if single_instance.running(config.home) else []
    lines += install_commands(pairs)
    print("Only root may install a LaunchDaemon. Nothing runs yet; these commands do it:\n")
    print("\n".join(f"  {line}" for line in lines))
    return 0 if options.dry_run else NEEDS_ROOT_EXIT_CODE


def install_commands(pairs: Sequence[tuple[Path, Path]]) -> list[str]:
    """Return the commands that install property lists, given pairs of the prepared file and its final path.

    The file name of the final path, without its suffix, is the job's label.
    """
    lines = []
    for source, target in pairs:
        owner_and_mode = ["-o", "root", "-g", "wheel", "-m", "644"]
        lines += [
            shlex.join(["sudo", "install", *owner_and_mode, str(source), str(target)]),
            shlex.join(["sudo", "launchctl", "enable", f"system/{target.stem}"]),
            shlex.join(["sudo", "launchctl", "bootstrap", "system", str(target)]),
        ]
    return lines


def uninstall_commands(paths: Sequence[Path]) -> list[str]:
    """Return the commands that unload the jobs of these property lists and delete the files."""
    lines = []
    for path in paths:
        lines += [
            shlex.join(["sudo", "launchctl", "bootout", f"system/{path.stem}"]),
            shlex.join(["sudo", "rm", str(path)]),
        ]
    return lines
