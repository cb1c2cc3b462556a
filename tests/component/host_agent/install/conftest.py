"""A user's machine on which `vestal install` runs, with fakes of launchctl, systemctl and loginctl."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import in_process

REPO = Path(__file__).resolve().parents[4]
FAKE = REPO / "tests" / "children" / "service_manager.py"
FOREIGN = ("VESTAL_", "MLX_", "OLLAMA_", "XDG_", "SUDO_")


class Machine:
    """A user's folder with a home in it, and fakes of launchctl, systemctl and loginctl first in PATH."""

    def __init__(self, folder: Path, manager: str, env: dict[str, str]) -> None:
        self.user, self.fake_state = folder / "ada", folder / "fake-state"
        programs = folder / "bin"
        for made in (self.user, self.fake_state, programs):
            made.mkdir()
        for name in ("launchctl", "systemctl", "loginctl"):
            (programs / name).symlink_to(FAKE)
        clean = {name: value for name, value in env.items() if not name.startswith(FOREIGN)}
        self.env = clean | {
            "HOME": str(self.user),
            "PATH": f"{programs}:{Path(sys.executable).parent}:{env['PATH']}",
            "STAND_IN": str(self.fake_state),
            "VESTAL_SERVICE_MANAGER": manager,
            "VESTAL_OLLAMA__MANAGE": "off",
        }

    def vestal(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, which takes a tenth of the time."""
        return in_process.vestal(arguments, self.env | env)

    def vestal_process(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "host_agent.cli.main", *arguments]
        return subprocess.run(
            command, env=self.env | env, cwd=REPO, capture_output=True, text=True, timeout=115
        )

    def calls(self) -> list[str]:
        """Return the commands that changed something since the last call, and forget them."""
        path = self.fake_state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        read_only = ("launchctl print", "systemctl --user show", "loginctl show-user")
        return [line for line in lines if not line.startswith(read_only)]

    def refuse(self, verb: str, *replies: str) -> None:
        """Let the next calls of `verb` fail with these replies, an exit code and a message each."""
        (self.fake_state / f"refuse-{verb}").write_text("\n".join(replies))

    def loaded(self) -> set[str]:
        path = self.fake_state / "loaded"
        return set(path.read_text().split()) if path.exists() else set()


@pytest.fixture
def mac(tmp_path: Path, free_port: Callable[[], int]) -> Machine:
    machine = Machine(tmp_path, "launchd", dict(os.environ))
    machine.env["VESTAL_AGENT_PORT"] = str(free_port())
    return machine


@pytest.fixture
def linux(tmp_path: Path, free_port: Callable[[], int]) -> Machine:
    machine = Machine(tmp_path, "systemd", dict(os.environ))
    machine.env["VESTAL_AGENT_PORT"] = str(free_port())
    return machine


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}
