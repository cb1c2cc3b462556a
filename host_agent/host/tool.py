"""Runs the platform's own tools and gives what they print. What it means is told by a parser beside it."""

import os
import subprocess

WITHIN_S = 10.0


def output(*command: str, within_s: float = WITHIN_S) -> str | None:
    """What it prints, in English; None where there is no such tool, it failed, or took too long."""
    environment = {**os.environ, "LC_ALL": "C", "HOMEBREW_NO_AUTO_UPDATE": "1", "NO_COLOR": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
