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


@pytest.mark.parametrize(
    "name", ["my projects", 'o\'brien $HOME "x"', "n" * 200], ids=["blank", "quotes", "long"]
)
def test_vestal_command_starts_in_a_checkout_whose_path_has_blanks_or_quotes_or_is_long(
    tmp_path: Path, repo: Path, name: str
):
    """The kernel ends the path of an interpreter at a blank, so no command of such a checkout started."""
    folder = checkout(tmp_path / name / name / "vestal", repo)
    env = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    env.pop("PYTHONPATH", None)  # the command must find the checkout by itself
    made = subprocess.run(
        ["deploy/bootstrap.sh", "host"], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr
    for command in (".venv/bin/vestal", str(folder / ".venv" / "bin" / "vestal")):
        done = subprocess.run(
            [command, "a b", "$c"], cwd=folder, env=env, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "a b|$c\n", "")
