"""The commands that only root may run for a LaunchDaemon, to be read and run by a person."""

import shlex
from collections.abc import Sequence
from pathlib import Path


def install_commands(staged: Sequence[tuple[Path, Path]]) -> list[str]:
    """For lists that lie ready (where it lies, where it belongs): its label is the file's name."""
    lines = []
    for source, target in staged:
        lines += [
            shlex.join(
                ["sudo", "install", "-o", "root", "-g", "wheel", "-m", "644", str(source), str(target)]
            ),
            shlex.join(["sudo", "launchctl", "enable", f"system/{target.stem}"]),
            shlex.join(["sudo", "launchctl", "bootstrap", "system", str(target)]),
        ]
    return lines


def uninstall_commands(paths: Sequence[Path]) -> list[str]:
    lines = []
    for path in paths:
        lines += [
            shlex.join(["sudo", "launchctl", "bootout", f"system/{path.stem}"]),
            shlex.join(["sudo", "rm", str(path)]),
        ]
    return lines
