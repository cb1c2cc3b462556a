"""Run a real Ollama as a peer: the program that VESTAL_TEST_OLLAMA names, or the one on the PATH.

`ollama.md` says how to build one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.peers.environments import version_of
from benchmarks.peers.process import PeerFailed
from benchmarks.peers.program_peer import LONGEST_CONTEXT, SENT_MODEL, STREAMS, Launch, ProgramPeer

VARIABLE = "VESTAL_TEST_OLLAMA"
CREATE_TIMEOUT_S = 120.0


def program() -> str | None:
    """Return the path of the program `ollama`; None if there is none."""
    named = os.environ.get(VARIABLE)
    return named if named and Path(named).exists() else shutil.which("ollama")


def why_not() -> str | None:
    """Return why Ollama cannot run on this machine; None if it can."""
    if program() is None:
        return f"There is no `ollama` on the PATH or in {VARIABLE}; see benchmarks/peers/ollama.md."
    return None


def version() -> str:
    """Return the version of the program; "" if there is none."""
    path = program()
    return version_of(path, "--version") if path else ""


def command(launch: Launch) -> Sequence[str]:
    return [program() or "ollama", "serve"]


def environment(launch: Launch) -> Mapping[str, str]:
    """Return environment variables for Ollama. It then listens on the port of `launch`, keeps its models in
    the home folder of `launch`, and serves up to STREAMS requests at the same time, which is the largest
    number that a comparison sends.
    """
    return {
        "OLLAMA_HOST": f"127.0.0.1:{launch.port}",
        "OLLAMA_MODELS": str(launch.home / "models"),
        "OLLAMA_NUM_PARALLEL": str(STREAMS),
        "OLLAMA_CONTEXT_LENGTH": str(LONGEST_CONTEXT),
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_NO_CLOUD": "1",
    }


def create_model(launch: Launch) -> None:
    """Create Ollama's model from the GGUF file. Raises PeerFailed, with the output of `ollama create`, if
    that fails.
    """
    (launch.home / "Modelfile").write_text(f"FROM {launch.model.gguf}\n")
    done = subprocess.run(
        [program() or "ollama", "create", SENT_MODEL, "-f", str(launch.home / "Modelfile")],
        env=os.environ | {"HOME": str(launch.home), **environment(launch)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CREATE_TIMEOUT_S,
    )
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise PeerFailed(f"`ollama create` ended with exit code {done.returncode}: {said}")


OLLAMA = ProgramPeer(
    "ollama",
    why_not,
    version,
    command,
    needs=("gguf",),
    path="/api/version",
    env=environment,
    has_mlx=False,
    after_start=create_model,
)
"""Ollama on a port of its own; the user's server and models are not touched."""
