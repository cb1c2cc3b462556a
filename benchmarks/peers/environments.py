"""Define the environments of the peers: each is pinned, installed into a separate folder, and removable.

A peer from PyPI gets a virtual environment, one from npm a folder of modules, a Go program or a Debian
package its own folder. None of them changes Vestal's environment or the system.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.process import PeerFailed

REPO = Path(__file__).resolve().parents[2]
FOLDER_VARIABLE = "BENCH_PEERS"
PEERS = Path(os.environ.get(FOLDER_VARIABLE) or REPO / ".cache" / "peers")
"""The folder of all environments. Several checkouts may share one, which BENCH_PEERS names."""
REQUIREMENTS = Path(__file__).with_name("requirements")
RECORD = "installed.json"
KEPT_LINES = 40
VERSION = re.compile(r"\d+(?:\.\d+)+(?:[-.]?(?:rc|beta|alpha|dev|post)\.?\d*)?")

Say = Callable[[str], None]


class InstallError(RuntimeError):
    """A peer cannot be installed; the message says why in one sentence."""


@dataclass(frozen=True)
class Environment:
    """The folder of one peer, which is a program with which Vestal is compared.

    `program` is the path of the peer's executable in the folder. `pins` names the files in `requirements/`
    that pin the versions of the peer's packages. `fill` is a function that installs the peer into the folder.
    `on_path` is the name of a program on the PATH that is used if the folder has none; "" if there is no such
    program.
    """

    name: str
    program: str
    pins: tuple[str, ...]
    fill: Callable[[Environment, Say], None]
    on_path: str = ""

    @property
    def folder(self) -> Path:
        return PEERS / self.name

    def path(self) -> Path | None:
        """Return the path of the peer's program; None if it is not installed."""
        own = self.folder / self.program
        if own.exists() and "version" in self._record():
            return own
        found = shutil.which(self.on_path) if self.on_path else None
        return Path(found) if found else None

    def why_not(self) -> str | None:
        """Return, in a sentence, why the peer cannot be started; None if it is installed in the pinned
        versions.
        """
        record = self._record()
        is_current = record.get("pins") == self._pins_hash()
        if self.path() is None:
            if record.get("failed") and is_current:
                return f"Its installation failed: {record['failed']}"
            return f"It is not installed; run `python -m benchmarks.peers install {self.name}`."
        if record.get("version") and not is_current:
            again = f"`python -m benchmarks.peers install {self.name}`"
            return f"It is installed in other versions than those pinned now; run {again}."
        return None

    def version(self) -> str:
        """Return the installed version; "" if the peer is not installed."""
        if self.path() is None:
            return ""
        return str(self._record().get("version") or version_of(str(self.path())))

    def install(self, say: Say) -> None:
        """Replace the content of the folder by a new installation. If that fails, record why and raise
        InstallError.
        """
        self.remove()
        self.folder.mkdir(parents=True)
        began = time.monotonic()
        record: dict[str, Any] = {"pins": self._pins_hash()}
        try:
            self.fill(self, say)
            program = self.folder / self.program
            if not program.exists():
                raise InstallError(f"The installation ended well, and there is no {self.program}.")
            record["version"] = self._pinned_version() or version_of(str(program))
        except InstallError as error:
            record["failed"] = str(error)
            raise
        finally:
            if "version" in record or "failed" in record:  # an interrupted installation leaves no record
                record["seconds"] = round(time.monotonic() - began)
                (self.folder / RECORD).write_text(json.dumps(record) + "\n")

    def remove(self) -> None:
        """Delete the peer's folder, and nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _record(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / RECORD).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _pins_hash(self) -> str:
        text = b"\0".join((REQUIREMENTS / name).read_bytes() for name in self.pins)
        return hashlib.sha256(text).hexdigest()

    def _pinned_version(self) -> str:
        package = "supervisor" if self.name == "supervisord" else self.name
        for name in self.pins:
            found = re.search(rf"^{re.escape(package)}==(\S+)", (REQUIREMENTS / name).read_text(), re.M)
            if found:
                return found[1]
        return ""


def venv(name: str, program: str) -> Environment:
    """Return the environment of the peer `name` from PyPI: a Python virtual environment with the packages
    that `requirements/NAME.txt` pins. `program` is the name of the peer's executable in `bin/`. Nothing is
    installed yet.
    """
    return Environment(name, f"bin/{program}", (f"{name}.txt",), _fill_venv)


def _fill_venv(environment: Environment, say: Say) -> None:
    run([sys.executable, "-m", "venv", str(environment.folder)], say)
    python = str(environment.folder / "bin" / "python")
    options = ["--disable-pip-version-check", "--progress-bar", "off", "--no-deps"]
    files = [argument for name in environment.pins for argument in ("-r", str(REQUIREMENTS / name))]
    run([python, "-m", "pip", "install", *options, *files], say)


def fill_npm(environment: Environment, say: Say) -> None:
    """Install a peer's packages with npm into the folder of its `environment`, in the versions that the
    peer's lock file in `requirements/` pins. The packages' scripts are not run. Raises InstallError if npm is
    missing or fails.
    """
    for name in environment.pins:
        shutil.copy2(REQUIREMENTS / name, environment.folder / Path(name).name)
    run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], say, folder=environment.folder)


def fill_go(environment: Environment, say: Say) -> None:
    """Build the program of a Go module at its pinned version. Raises InstallError if that fails."""
    module = (REQUIREMENTS / environment.pins[0]).read_text().strip()
    run(["go", "install", module], say, folder=environment.folder, GOBIN=str(environment.folder / "bin"))


def fill_debian(environment: Environment, say: Say) -> None:
    """Download a peer's Debian package with apt-get and unpack it into the peer's folder. The package is not
    installed, so neither root nor a system service is needed. Raises InstallError if a command fails, or if
    this is not a Linux system with apt-get.
    """
    if sys.platform != "linux" or shutil.which("apt-get") is None:
        raise InstallError(
            f"{environment.name} comes from Debian's packages, and there is no apt-get here; install it by "
            "this system's package manager (macOS: `brew install monit`), and it is found on the PATH."
        )
    package = (REQUIREMENTS / environment.pins[0]).read_text().strip()
    run(["apt-get", "download", package], say, folder=environment.folder)
    for file in environment.folder.glob("*.deb"):
        run(["dpkg", "-x", file.name, "."], say, folder=environment.folder)
        file.unlink()


def run(command: Sequence[str], say: Say, folder: Path | None = None, **env: str) -> None:
    """Run a command and pass each line of its output to `say`. Raises InstallError, with a line that says
    why, if it fails.
    """
    say(f"$ {' '.join(command)}")
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise InstallError(f"`{command[0]}` cannot be started: {error.strerror}.") from error
    kept: list[str] = []
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip())
            kept = [*kept[1 - KEPT_LINES :], line.strip()]
    if process.returncode:
        raise InstallError(f"`{Path(command[0]).name} {' '.join(command[1:3])}` failed: {reason(kept)}")


def reason(lines: Sequence[str]) -> str:
    """Return the line that says why an installation failed: the last one that names an error, else the last
    one.
    """
    said = [
        line for line in lines if line and not line.startswith(("note:", "hint:", "npm error A complete log"))
    ]
    errors = [
        line for line in said if re.search(r"error|forbidden|not available|no such", line, re.IGNORECASE)
    ]
    return (errors or said or ["it printed nothing."])[-1]


def parse_version(text: str) -> str:
    """Return the first version number in the output of a program; "" if there is none."""
    found = VERSION.search(text)
    return found[0] if found else ""


def version_of(program: str, *flags: str) -> str:
    """Return the version that a program prints if it is run with one of `flags`, by default `--version`,
    `version` or `-V`; "" if it prints none.
    """
    for flag in flags or ("--version", "version", "-V"):
        try:
            done = subprocess.run([program, flag], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and (found := parse_version(done.stdout + done.stderr)):
            return found
    return ""


ENVIRONMENTS: dict[str, Environment] = {
    environment.name: environment
    for environment in (
        venv("vllm-mlx", "vllm-mlx"),
        venv("rapid-mlx", "rapid-mlx"),
        venv("fusion-mlx", "fusion-mlx"),
        venv("llama-cpp-python", "python"),
        venv("supervisord", "supervisord"),
        venv("circus", "circusd"),
        Environment(
            "pm2",
            "node_modules/pm2/bin/pm2-runtime",
            ("pm2/package.json", "pm2/package-lock.json"),
            fill_npm,
        ),
        Environment("monit", "usr/bin/monit", ("monit.txt",), fill_debian, on_path="monit"),
        Environment(
            "process-compose", "bin/process-compose", ("process-compose.txt",), fill_go, "process-compose"
        ),
    )
}
"""The environments by the names of their peers, in the order in which they are installed."""


def program_of(name: str) -> str:
    """Return the path of the peer's program. Raises PeerFailed if it is not installed."""
    path = ENVIRONMENTS[name].path()
    if path is None:
        raise PeerFailed(f"{name} is not installed.")
    return str(path)
