"""Define the servers with which Vestal's MLX server is compared, each started with the same model.

A peer runs with the settings that its own documentation recommends for several clients at once, and with an
unquantized KV cache if it has a switch for that. On Linux, peers with MLX get our BLAS in place of the slow
one in MLX's wheel.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Protocol

from benchmarks.peers.environments import ENVIRONMENTS, program_of
from benchmarks.peers.models import BenchModel
from benchmarks.peers.ollama import OLLAMA
from benchmarks.peers.process import Peer
from benchmarks.peers.program_peer import LONGEST_CONTEXT, SENT_MODEL, Launch, ProgramPeer, RunningPeer

MLX_LM_PROGRAM = "from mlx_lm.server import main; main()"
MLX_LM_MODEL = "default_model"


class ServingPeer(Peer, Protocol):
    """A server that can be compared with Vestal's."""

    def start(self, model: BenchModel) -> RunningPeer:
        """Start the server with a model, and wait until it answers. Raises PeerFailed, with its last words,
        if it does not.
        """


def _mlx_lm(launch: Launch) -> list[str]:
    arguments = ["--model", str(launch.model.folder), "--port", str(launch.port), "--log-level", "WARNING"]
    return [sys.executable, "-c", MLX_LM_PROGRAM, *arguments]


def _mlx_lm_with_draft(launch: Launch) -> list[str]:
    return [*_mlx_lm(launch), "--draft-model", str(launch.model.draft)]


def _vllm_mlx(launch: Launch) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(launch.port), "--served-model-name", SENT_MODEL]
    return [program_of("vllm-mlx"), "serve", str(launch.model.folder), *address, "--continuous-batching"]


def _rapid_mlx(launch: Launch) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(launch.port), "--served-model-name", SENT_MODEL]
    return [program_of("rapid-mlx"), "--no-banner", "serve", str(launch.model.folder), *address]


def _fusion_mlx(launch: Launch) -> list[str]:
    """Return the command that starts fusion-mlx's server. Also create a folder with links to the model's
    files below `.fusion-mlx/models` in the server's home, because fusion-mlx accepts models only in certain
    folders, of which this is one.
    """
    folder = launch.home / ".fusion-mlx" / "models" / SENT_MODEL
    folder.mkdir(parents=True)
    for file in launch.model.folder.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    address = ["--host", "127.0.0.1", "--port", str(launch.port), "--served-model-name", SENT_MODEL]
    return [program_of("fusion-mlx"), "serve", "--model", str(folder), *address, "--kv-cache-dtype", "bf16"]


def _llama_cpp(launch: Launch) -> list[str]:
    """Return the command that starts llama-cpp-python's server. It contains `--interrupt_requests false`, so
    that the server does not abort an answer when another request arrives.
    """
    address = ["--host", "127.0.0.1", "--port", str(launch.port), "--model_alias", SENT_MODEL]
    model = ["--model", str(launch.model.gguf), "--n_ctx", str(LONGEST_CONTEXT)]
    cores = str(os.cpu_count() or 1)
    threads = ["--n_threads", cores, "--n_threads_batch", cores, "--interrupt_requests", "false"]
    return [program_of("llama-cpp-python"), "-m", "llama_cpp.server", *model, *address, *threads]


def _installed(
    name: str, command: Callable[[Launch], Sequence[str]], *needs: str, has_mlx: bool = True
) -> ProgramPeer:
    own = ENVIRONMENTS[name]
    return ProgramPeer(name, own.why_not, own.version, command, needs=needs, has_mlx=has_mlx)


def _mlx_lm_peer(name: str, command: Callable[[Launch], Sequence[str]], *needs: str) -> ProgramPeer:
    version = lambda: metadata.version("mlx-lm")  # noqa: E731
    return ProgramPeer(name, lambda: None, version, command, MLX_LM_MODEL, needs, "/health")


SERVING_PEERS: tuple[ServingPeer, ...] = (
    _mlx_lm_peer("mlx_lm.server", _mlx_lm),
    _mlx_lm_peer("mlx_lm.server+draft", _mlx_lm_with_draft, "draft"),
    _installed("vllm-mlx", _vllm_mlx),
    _installed("rapid-mlx", _rapid_mlx),
    _installed("fusion-mlx", _fusion_mlx),
    _installed("llama-cpp-python", _llama_cpp, "gguf", has_mlx=False),
    OLLAMA,
)
"""The peers, installed or not, in the order in which tables show them."""
