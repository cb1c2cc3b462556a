"""`vestal cache`: lists, checks and clears, with no engine and beside one."""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.cli import cache, parser
from mlx_server.engine.prompt_cache.folder import Folder
from mlx_server.engine.prompt_cache.store import Store
from tests.prompt_cache_model import Model


@pytest.fixture
def folder(tmp_path) -> Path:
    """The cache of an engine that kept 5 blocks and a snapshot of one model, and one block of another."""
    store = Store(Folder(tmp_path / "cache" / "prompts"), 1 << 20, 1 << 20)
    ours, other = Model(store), Model(store, "other")
    other.tags["model"] = "other:1"
    ours.keep(range(20))
    ours.keep_snapshot(range(7))
    other.keep(range(4))
    store.persist(5.0)
    store.close()
    (tmp_path / "cache" / "blas").mkdir()
    (tmp_path / "cache" / "blas" / "lib").write_text("library")
    return tmp_path / "cache"


def vestal(folder: Path, *arguments: str) -> int:
    options = parser.build().parse_args(["cache", *arguments])
    assert isinstance(options, argparse.Namespace)
    config: Any = SimpleNamespace(home=SimpleNamespace(cache=folder))
    return cache.run(options, config)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "prompts").glob("*.safetensors"))


def test_ls_tells_what_each_model_has(folder, capsys):
    assert vestal(folder, "ls", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    shares = {share["model"]: share for share in told["models"]}
    assert {name: (share["blocks"], share["tokens"]) for name, share in shares.items()} == {
        "m:1": (6, 27),
        "other:1": (1, 4),
    }
    assert sum(share["bytes"] for share in shares.values()) == sum(f.stat().st_size for f in files(folder))
    assert told["unreadable"] == 0
    assert vestal(folder) == 0
    assert "6 blocks" in capsys.readouterr().out


def test_ls_counts_what_it_cannot_read(folder, capsys):
    files(folder)[0].write_bytes(b"rubbish")
    files(folder)[1].write_bytes(b"")
    vestal(folder, "ls", "--json")
    assert json.loads(capsys.readouterr().out)["unreadable"] == 2


def test_without_a_cache_all_is_well(tmp_path, capsys):
    for what in ("ls", "verify", "clear"):
        assert vestal(tmp_path / "none", what) == 0
    assert "0.0 MiB" in capsys.readouterr().out


def test_verify_drops_the_corrupt_and_says_so(folder, capsys):
    assert vestal(folder, "verify") == 0
    flipped, swapped, other, *_ = files(folder)
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 4
    flipped.write_bytes(data)
    swapped.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert vestal(folder, "verify", "--json") == cache.CORRUPT
    told = json.loads(capsys.readouterr().out)
    assert (told["checked"], set(told["corrupt"])) == (7, {flipped.name, swapped.name})
    assert len(files(folder)) == 5
    assert vestal(folder, "verify") == 0


def test_clear_leaves_the_links_that_the_engine_needs(folder, capsys):
    assert vestal(folder, "clear") == 0
    assert [entry.name for entry in folder.iterdir()] == ["blas"]
    assert (folder / "blas" / "lib").exists()
    assert "cleared" in capsys.readouterr().out


def test_clear_beside_an_engine_is_seen_by_it(folder):
    store = Store(Folder(folder / "prompts"), 1 << 20, 1 << 20)
    model = Model(store)
    assert model.get(range(20)) > 0
    vestal(folder, "clear")
    assert model.get(range(20)) == 0
    assert model.keep(range(20)) == 5
    store.persist(5.0)
    assert len(files(folder)) == 5
    store.close()


def test_command_loads_no_numpy_and_no_mlx(repo):
    program = "import sys, host_agent.cli.cache; print([m for m in ('mlx', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
