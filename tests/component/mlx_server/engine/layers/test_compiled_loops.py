"""An engine builds MLX's loops once, and serves in spite of libraries that are damaged or cannot be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_server.blas.elf_files import is_complete
from mlx_server.engine_environment import TEMPORARY_VARIABLE, engine_environment
from mlx_server.protocol import Generate, Sampling
from tests.component.mlx_server.engine.conftest import CHAT, Engine

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform != "linux", reason="MLX's loops are for the CPU"),
]

LOAD = """
from mlx_server.engine.device import computes_on_gpu
from mlx_server.engine.layers.compiled_loops import load_compiled_loops
import mlx.core as mx
from mlx_server.engine.fast_exponential import softmax
assert not computes_on_gpu()
load_compiled_loops()
assert mx.allclose(softmax(mx.zeros((1, 4))), mx.array([[0.25] * 4])).item()
"""

FAILING_COMPILER = """#!/bin/sh
case "$*" in *.cpp*) exit 1;; esac
"""


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """Return the folder for temporary files of all engines that tests start, in which the loops are built."""
    folder = Path(engine_environment(tmp_path_factory.mktemp("cache"))[TEMPORARY_VARIABLE])
    load(folder)
    return folder


@pytest.fixture
def temporary(built: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder in which the loops are built."""
    shutil.copytree(built, tmp_path / "temporary")
    return tmp_path / "temporary"


def load(temporary: Path, before: str = "", **env: str) -> str:
    """Load the loops in another process, after it has run `before`. Return what the process has logged."""
    code = textwrap.dedent(before) + LOAD
    whole = os.environ | {TEMPORARY_VARIABLE: str(temporary)} | env
    done = subprocess.run([sys.executable, "-c", code], env=whole, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def libraries(temporary: Path) -> list[Path]:
    return sorted(temporary.glob("mlx/*/cpu/*.so"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:2000],  # ends a process that opens it by SIGBUS
        lambda content: content[: len(content) // 2],
        lambda content: bytes(len(content)),
    ],
    ids=["empty", "its first page", "its first half", "zeros"],
)
def test_library_that_a_power_cut_has_damaged_is_built_again(
    temporary: Path, damage: Callable[[bytes], bytes]
):
    library = libraries(temporary)[0]
    library.write_bytes(damage(library.read_bytes()))
    assert "compiled_loop_deleted" in load(temporary)
    assert is_complete(library)


def test_engine_whose_compiled_loops_are_all_damaged_gives_the_same_answer(
    temporary: Path, small_models_dir, home: Path
):
    env = {"VESTAL_MODELS_DIR": str(small_models_dir), "MLX_PRELOAD_MODELS": CHAT}
    op = Generate("a", CHAT, "text", prompt="Once", max_tokens=8, sampling=Sampling(temperature=0.0))
    texts = []
    for is_damaged in (False, True):
        for library in libraries(temporary) if is_damaged else ():
            library.write_bytes(library.read_bytes()[:2000])
        engine = Engine(home, env | {TEMPORARY_VARIABLE: str(temporary)})
        engine.send(op)
        texts.append(engine.text("a"))
        engine.close()
    assert texts[0] == texts[1] != ""


@pytest.mark.parametrize("cause", ["a failing compiler", "a full disk", "a file in place of the folder"])
def test_engine_whose_compiled_loops_cannot_be_built_computes_the_same_and_logs_the_reason(
    tmp_path: Path, cause: str
):
    before, env = "", {}
    if cause == "a failing compiler":
        for name in ("g++", "clang++"):
            (tmp_path / name).write_text(FAILING_COMPILER)
            (tmp_path / name).chmod(0o755)
        env["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    elif cause == "a full disk":
        before = "import shutil, types; shutil.disk_usage = lambda _: types.SimpleNamespace(free=0)"
    else:
        (tmp_path / "mlx").write_text("")
    assert "compiled_loops_not_used" in load(tmp_path, before, **env)
    assert libraries(tmp_path) == []


def test_engine_without_a_compiler_computes_the_same_without_compiled_loops(tmp_path: Path):
    load(tmp_path, PATH="/nonexistent")
    assert libraries(tmp_path) == []


def test_old_temporary_files_of_compiled_loops_are_deleted_and_new_ones_are_kept(temporary: Path):
    folder = libraries(temporary)[0].parent
    old, new = folder / "tmp_1.so", folder / "tmp_2.so"
    for part in (old, new):
        part.write_bytes(b"")
    os.utime(old, (0, 0))
    load(temporary)
    assert not old.exists() and new.exists()


def test_command_that_an_installation_runs_builds_all_loops_so_that_an_engine_builds_none(tmp_path: Path):
    prepare = f"""
    import sys
    from mlx_server import engine_environment
    engine_environment.packaged_library = lambda: None  # its folder is shared by all tests
    sys.prefix = {str(tmp_path)!r}
    from mlx_server import prepare_host
    prepare_host.main()
    """
    command = [sys.executable, "-c", textwrap.dedent(prepare)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    temporary = tmp_path / "cache" / "blas" / "temporary"
    built = libraries(temporary)
    assert len(built) > 10
    assert load(temporary) == ""
    assert libraries(temporary) == built
