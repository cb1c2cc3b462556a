"""`vestal cache`: list, verify and clear, without an engine and while one runs."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.cli import parser
from host_agent.cli.inspect import cache
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.store import BlockStore
from tests.prompt_cache_model import Model
from tests.services.http_servers import JsonAnswers, serving

UNUSED_PORT = 1
"""A port on which nothing listens."""
USE = {"hits_ram": 91, "hits_disk": 12, "misses": 30, "written_bytes": 5 << 20}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A cache with 5 blocks and a snapshot of one model, and one block of another, as an engine writes it."""
    store = BlockStore(BlockFolder(tmp_path / "cache" / "prompts"), 1 << 20, 1 << 20)
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


@pytest.fixture
def gateway() -> Iterator[HTTPServer]:
    """Answers every GET as the gateway answers /health, with the fields of the prompt cache."""

    class Health(JsonAnswers):
        def do_GET(self) -> None:
            self.answer({"status": "ok", "prompt_cache": {**USE, "ram_bytes": 3 << 20}})

    with serving(HTTPServer(("127.0.0.1", 0), Health)) as server:
        yield server


def vestal(folder: Path, *arguments: str, port: int = UNUSED_PORT) -> int:
    options = parser.build().parse_args(["cache", *arguments])
    assert isinstance(options, argparse.Namespace)
    config: Any = SimpleNamespace(home=SimpleNamespace(cache=folder), mlx=SimpleNamespace(port=port))
    return cache.run(options, config)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "prompts").glob("*.safetensors"))


def test_cache_ls_lists_blocks_tokens_and_bytes_of_each_model(folder, capsys):
    assert vestal(folder, "ls", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    shares = {share["model"]: share for share in answer["models"]}
    assert {name: (share["blocks"], share["tokens"]) for name, share in shares.items()} == {
        "m:1": (6, 27),
        "other:1": (1, 4),
    }
    assert sum(share["bytes"] for share in shares.values()) == sum(f.stat().st_size for f in files(folder))
    assert answer["unreadable"] == 0
    assert vestal(folder) == 0
    titles, first, second, *_ = capsys.readouterr().out.splitlines()
    assert titles.split() == ["model", "blocks", "tokens", "size", "last", "used"]
    assert sorted([first.split()[:3], second.split()[:3]]) == [["m:1", "6", "27"], ["other:1", "1", "4"]]


def test_cache_ls_with_a_running_engine_shows_its_hits_and_misses(folder, gateway, capsys):
    assert vestal(folder, "ls", port=gateway.server_port) == 0
    output = capsys.readouterr().out
    assert "3.0 MiB in memory; 91 blocks found in memory, 12 on disk, 30 computed; 5.0 MiB written" in output
    assert vestal(folder, "ls", "--json", port=gateway.server_port) == 0
    assert json.loads(capsys.readouterr().out)["engine"]["hits_ram"] == 91
    assert vestal(folder, "ls", "--json") == 0
    assert json.loads(capsys.readouterr().out)["engine"] is None


def test_cache_ls_counts_unreadable_files(folder, capsys):
    files(folder)[0].write_bytes(b"rubbish")
    files(folder)[1].write_bytes(b"")
    vestal(folder, "ls", "--json")
    assert json.loads(capsys.readouterr().out)["unreadable"] == 2


def test_cache_command_without_a_cache_folder_succeeds(tmp_path, capsys):
    for what in ("ls", "verify", "clear"):
        assert vestal(tmp_path / "none", what) == 0
    assert "0 B" in capsys.readouterr().out


def test_cache_verify_deletes_and_reports_corrupt_files(folder, capsys):
    assert vestal(folder, "verify") == 0
    flipped, swapped, other, *_ = files(folder)
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 4
    flipped.write_bytes(data)
    swapped.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert vestal(folder, "verify", "--json") == cache.CORRUPT_EXIT_CODE
    answer = json.loads(capsys.readouterr().out)
    assert (answer["checked"], set(answer["corrupt"])) == (7, {flipped.name, swapped.name})
    assert len(files(folder)) == 5
    assert vestal(folder, "verify") == 0


def test_cache_clear_deletes_cached_prompt_blocks_and_keeps_the_blas_library_folder(folder, capsys):
    assert vestal(folder, "clear") == 0
    assert [entry.name for entry in folder.iterdir()] == ["blas"]
    assert (folder / "blas" / "lib").exists()
    assert "Deleted" in capsys.readouterr().out


def test_cache_clear_while_an_engine_runs_makes_its_next_lookups_miss(folder):
    store = BlockStore(BlockFolder(folder / "prompts"), 1 << 20, 1 << 20)
    model = Model(store)
    assert model.get(range(20)) > 0
    vestal(folder, "clear")
    assert model.get(range(20)) == 0
    assert model.keep(range(20)) == 5
    store.persist(5.0)
    assert len(files(folder)) == 5
    store.close()


def test_cache_command_imports_neither_numpy_nor_mlx(repo):
    program = (
        "import sys, host_agent.cli.inspect.cache; print([m for m in ('mlx', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
