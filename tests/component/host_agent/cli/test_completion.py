"""The completion scripts in bash, zsh and fish themselves: they complete commands, services and models."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.cli.completion import completion
from vestal.config import load

WITHIN_S = 60.0
Complete = Callable[[Path, str], str]


def by_bash(home: Path, line: str) -> str:
    """Return the candidates for the last word of the line."""
    words = line.split(" ")
    program = (
        f"source {home}/vestal.bash; COMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words) - 1}; "
        f"_shtab_vestal vestal '{words[-1]}' {words[-2]}; echo ${{COMPREPLY[@]}}"
    )
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout


def by_fish(home: Path, line: str) -> str:
    """Return the candidates for the last word of the line, each with its description."""
    program = f"source {home}/vestal.fish; complete -C '{line}'"
    command = ["fish", "--no-config", "-c", program]
    return subprocess.run(command, env=_env(home), capture_output=True, text=True, check=True).stdout


def by_zsh(home: Path, line: str) -> str:
    """Return what stands on the line of an interactive zsh after Tab. It loads the script from its fpath."""
    functions = home / ".zfunc"
    functions.mkdir(exist_ok=True)
    shutil.copy(home / "vestal.zsh", functions / "_vestal")
    setup = (
        f"fpath=({functions} $fpath); autoload -Uz compinit && compinit -u -D\n"
        "show() { print -r -- \"<<$BUFFER\"'>>' }; zle -N show; bindkey '^B' show; PROMPT='rea''dy> '\n"
    )
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"],
        env=_env(home),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    try:
        os.write(leader, setup.encode())
        _read_until(leader, "ready> ")
        os.write(leader, f"{line}\t\x02".encode())
        return _read_until(leader, ">>").rpartition("<<")[2]
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)


def _read_until(terminal: int, end: str) -> str:
    got, deadline = "", time.monotonic() + WITHIN_S
    while end not in got:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"the shell has printed only {got!r}"
        got += os.read(terminal, 65536).decode("utf-8", "replace")
    return got


def _env(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize(("shell", "complete"), [("bash", by_bash), ("zsh", by_zsh), ("fish", by_fish)])
def test_shell_completion_offers_commands_services_and_installed_models(
    home: Path, shell: str, complete: Complete
):
    if shutil.which(shell) is None:
        pytest.skip(f"there is no `{shell}` on this machine: apt install {shell}")
    (home / "models" / "qwen3__8b").mkdir(parents=True)
    config = load({"HOME": str(home), "VESTAL_HOME": str(home)}, home)
    (home / f"vestal.{shell}").write_text(completion.script(shell, config))
    assert "status" in complete(home, "vestal statu")
    assert "mlx_engine" in complete(home, "vestal logs mlx_e")
    assert "qwen3:8b" in complete(home, "vestal chat ").replace("\\", "")
    assert "qwen3:8b" in complete(home, "vestal models rm ").replace("\\", "")
    for action in ("search", "pull", "info", "suggest"):
        assert action in complete(home, f"vestal models {action[:-1]}")
