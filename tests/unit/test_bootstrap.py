"""deploy/bootstrap.sh, with a stand-in for uv that downloads nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UV = """#!/bin/sh
[ "$1" = venv ] || exit 0
for last; do :; done
mkdir -p "$last/bin" "$last/lib/python{version}/site-packages"
printf 'home = %s\\n' "{home}" > "$last/pyvenv.cfg"
ln -s "{python}" "$last/bin/python"
"""
APPLE_CHIP = {"uname": "echo Darwin", "sysctl": "echo 1"}
# Stands in for a Python: it says whether it is built for arm64, and makes a virtual environment of itself.
PYTHON = """case "$*" in
*platform.machine*) exit {machine} ;;
*"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
*purelib*) dirname "$0" ;;
esac
"""
UV_WITH_INTEL = """[ "$1" = venv ] || exit 0
for last; do :; done
case "$*" in
*macos-aarch64*) {fetches} && exec "{bin}/arm64" -m venv "$last"; exit 2 ;;
*) exec "{bin}/intel" -m venv "$last" ;;
esac
"""
MAIN = """import sys
def main():
    print(*sys.argv[1:], sep="|")
    return 3
"""


def checkout(folder: Path, repo: Path) -> Path:
    """Make a checkout with the real bootstrap.sh, and a command line that prints its arguments."""
    for part in ("deploy", "requirements", "bin", "host_agent/cli"):
        (folder / part).mkdir(parents=True)
    shutil.copy(repo / "deploy" / "bootstrap.sh", folder / "deploy")
    (folder / "pyproject.toml").touch()
    (folder / "requirements" / "host.lock").write_text("x==1 --hash=sha256:0\n")
    (folder / "host_agent" / "cli" / "main.py").write_text(MAIN)
    python = Path(sys.executable).resolve()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    uv = folder / "bin" / "uv"
    uv.write_text(UV.format(version=version, home=python.parent, python=python))
    uv.chmod(0o755)
    return folder


def bootstrap(folder: Path) -> dict[str, str]:
    """Run deploy/bootstrap.sh in the checkout `folder`. Return the environment in which it was run."""
    env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)  # the commands must find the checkout by themselves
    made = subprocess.run(
        ["deploy/bootstrap.sh", "host"], cwd=folder, env=env, capture_output=True, text=True, timeout=110
    )
    assert made.returncode == 0, made.stderr
    return env


@pytest.mark.parametrize(
    "name", ["my projects", 'o\'brien $HOME "x"', "n" * 200], ids=["blank", "quotes", "long"]
)
def test_vestal_command_starts_in_a_checkout_whose_path_has_blanks_or_quotes_or_is_long(
    tmp_path: Path, repo: Path, name: str
):
    """The kernel ends the path of an interpreter at a blank, so no command of such a checkout started."""
    folder = checkout(tmp_path / name / name / "vestal", repo)
    env = bootstrap(folder)
    for command in (".venv/bin/vestal", str(folder / ".venv" / "bin" / "vestal")):
        done = subprocess.run(
            [command, "a b", "$c"], cwd=folder, env=env, capture_output=True, text=True, timeout=110
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "a b|$c\n", "")


def test_bootstrap_makes_the_environment_anew_if_its_python_was_removed(tmp_path: Path, repo: Path):
    """An upgrade of Python removes the one that .venv links to; every command then failed with status 127."""
    folder = checkout(tmp_path, repo)
    for _ in range(2):
        env = bootstrap(folder)
        done = subprocess.run(
            [".venv/bin/vestal", "a"], cwd=folder, env=env, capture_output=True, timeout=110
        )
        assert done.returncode == 3, done.stderr
        python = folder / ".venv" / "bin" / "python"
        python.unlink()
        python.symlink_to(tmp_path / "removed")


@pytest.mark.skipif(sys.platform != "linux", reason="only there are libraries built")
@pytest.mark.parametrize("fails", [False, True])
def test_bootstrap_builds_the_libraries_of_engines_once_and_goes_on_if_that_fails(
    tmp_path: Path, repo: Path, fails: bool
):
    folder = checkout(tmp_path, repo)
    (folder / "mlx_server").mkdir()
    prepare = f"import sys\nopen('prepared', 'a').write('once.')\nsys.exit({int(fails)})\n"
    (folder / "mlx_server" / "prepare_host.py").write_text(prepare)
    for _ in range(2):
        bootstrap(folder)
    assert (folder / "prepared").read_text() == "once."


def apple_checkout(folder: Path, repo: Path, fetches: str) -> Path:
    """Make a checkout on a Mac with an Apple chip, whose uv chooses an Intel Python. `fetches` is the shell
    command that says whether uv can fetch an arm64 one.
    """
    checkout(folder, repo)
    commands = {
        **APPLE_CHIP,
        "intel": PYTHON.format(machine=1),
        "arm64": PYTHON.format(machine=0),
        "uv": UV_WITH_INTEL.format(fetches=fetches, bin=folder / "bin"),
    }
    for name, script in commands.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("made_before", [False, True], ids=["new", "made_before"])
@pytest.mark.parametrize("fetches", ["true", "false"], ids=["uv_fetches_arm64", "only_path_has_arm64"])
def test_bootstrap_on_an_apple_chip_replaces_the_intel_python_that_uv_chooses(
    tmp_path: Path, repo: Path, fetches: str, made_before: bool
):
    """MLX has no package for an Intel Python, so no run of `make` succeeded, and each blamed the network."""
    folder = apple_checkout(tmp_path / "vestal", repo, fetches)
    python = folder / ".venv" / "bin" / "python"
    if made_before:
        python.parent.mkdir(parents=True)
        shutil.copy(folder / "bin" / "intel", python)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "VESTAL_PYTHON": str(folder / "bin" / "arm64")}
    made = subprocess.run(
        ["deploy/bootstrap.sh", "host"], cwd=folder, env=env, capture_output=True, text=True, timeout=110
    )
    assert made.returncode == 0, made.stderr
    assert python.read_text() == (folder / "bin" / "arm64").read_text()
    assert "uv chose an Intel Python" in made.stderr
