"""Have MLX build and load, before the engine serves, the loops that a C compiler translates for it on a CPU.

MLX joins the simple operations of a function that is wrapped in `mx.compile` in one loop. It builds a library
of each loop in the folder for temporary files, and opens the library there in later processes. The engine has
such a folder of its own (`mlx_server.engine_environment`), which lasts longer than a process or a machine's
run. MLX does not wait until a library is on the disk, so a power cut can leave it empty or torn, and each
later engine would end by SIGBUS at its first step.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from mlx_server.blas.elf_files import is_complete
from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.fast_exponential import logsumexp, softmax
from mlx_server.engine.layers.fast_activations import swiglu
from mlx_server.engine.layers.fused_norms import FusedRMSNorm
from mlx_server.engine.layers.shared_rotations import SharedRotation
from mlx_server.engine.log import log_event

LEAST_FREE_BYTES = 16 << 20
"""With less free space on the disk, loops are not used, because one that has yet to be built could not be."""

ABANDONED_AFTER_S = 3600.0
"""What MLX has begun to build so long ago belongs to a process that was killed."""


def load_compiled_loops() -> None:
    """Have MLX build and load the loops of `softmax`, `logsumexp`, SwiGLU, RMSNorm and rotary positions,
    after libraries of loops that a power cut has damaged were deleted. Do nothing on a GPU.

    Building them takes some seconds, once on a machine for each version of MLX; loading them takes
    milliseconds. If they cannot be built, for example because the disk is full, log that and switch loops off
    for this process: each operation is then computed by itself, which is slower.
    """
    if computes_on_gpu():
        return
    folder = Path(tempfile.gettempdir())
    try:
        if (free_bytes := shutil.disk_usage(folder).free) < LEAST_FREE_BYTES:
            raise OSError(f"{folder}: only {free_bytes >> 20} MiB are free on this disk")
        if sys.platform.startswith("linux"):
            _delete_damaged(folder)
        for heads, tokens in _shapes():
            _use_loops(heads, tokens)
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError
        mx.disable_compile()
        log_event("compiled_loops_not_used", cause=" ".join(str(error).split())[:300])


def _delete_damaged(folder: Path) -> None:
    """Delete the libraries in MLX's folders in `folder` that are not complete, and what a killed process has
    begun to build. MLX builds under another name, so what a running process builds is not deleted.
    """
    for library in folder.glob("mlx/*/cpu/lib*.so"):
        if not is_complete(library):
            library.unlink(missing_ok=True)
            log_event("compiled_loop_deleted", cause="the file is damaged", file=library.name)
    for part in folder.glob("mlx/*/cpu/tmp_*"):
        if time.time() - part.stat().st_mtime > ABANDONED_AFTER_S:
            part.unlink(missing_ok=True)


def _shapes() -> Iterator[tuple[mx.array, mx.array]]:
    """Yield example inputs, queries and hidden states, for each kind of shape for which MLX builds separate
    loops: of one request or several, with one token or several.
    """
    for requests in (1, 2):
        for tokens in (1, 3):
            yield mx.zeros((requests, tokens, 2, 16)).swapaxes(1, 2), mx.zeros((requests, tokens, 32))


def _use_loops(heads: mx.array, tokens: mx.array) -> None:
    """Compute each function that has loops, for the queries `heads` (requests, heads, tokens, width) and the
    hidden states `tokens` (requests, tokens, width).
    """
    rotation, norm = SharedRotation(heads.shape[-1]), FusedRMSNorm(tokens.shape[-1])
    positions = mx.zeros((heads.shape[0],), dtype=mx.int32)
    of_loops = [rotation(heads, 0), rotation(heads, positions), norm(tokens), swiglu(tokens, tokens)]
    mx.eval(softmax(heads), logsumexp(heads), of_loops)
