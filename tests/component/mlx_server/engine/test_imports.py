"""What an engine's start imports: after a crash, streams stand still for as long as the imports take."""

import json
import subprocess
import sys

import pytest

NOT_AT_START = (
    "torch",
    "pandas",
    "scipy",
    "datasets",
    "llguidance",
    "mlx_lm.server",
    "fastapi",
    "uvicorn",
    "mlx_vlm",
)

PROGRAM = f"""
import json, sys
from mlx_server.engine.import_patches import import_transformers
import_transformers()
import mlx_server.engine.scheduling.scheduler
import transformers.models
from importlib.util import cache_from_source
from pathlib import Path
from transformers.utils import import_utils
loaded = [name for name in {NOT_AT_START} if name in sys.modules]
file = str(Path(transformers.__file__).parent / "models" / "__init__.py")
ours = import_utils.define_import_structure(file)
scan, = (c.cell_contents for c in import_utils.create_import_structure_from_path.__closure__
         if hasattr(c.cell_contents, "cache_info"))
import_utils.create_import_structure_from_path = scan
import_utils.define_import_structure.cache_clear()
theirs = import_utils.define_import_structure(file)
kept = list(Path(cache_from_source(file)).parent.glob("contents-*.json"))
print(json.dumps([loaded, ours == theirs, bool(kept)]))
"""


@pytest.fixture(scope="module")
def found() -> list:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_engine_start_imports_no_unneeded_module(found):
    assert found[0] == []


def test_saved_scan_of_transformers_exists_and_equals_the_scan_by_transformers_itself(found):
    assert found[1:] == [True, True]


@pytest.mark.parametrize("limit", [256, 8192])
def test_import_of_mlx_lm_does_not_change_the_limit_of_open_files(limit):
    """mlx-lm sets the limit to 2,048: a ValueError under `ulimit -n 256`, so no engine could start."""
    program = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n"
        "from mlx_server.engine.import_patches import import_mlx_lm\n"
        "import_mlx_lm()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110)
    assert done.stdout.strip() == f"({limit}, {limit})", done.stderr
