"""Pulling from a hub on loopback: forecasts before the download, resumption, and what is refused and why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.fake_hub import FakeHub, FakeRepository, fake_hub, model_files
from tests.waiting import looks

MIB = 1024**2
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with fake_hub() as server:
        yield server


class Puller:
    """Runs the model store's program with a home and a hub's cache of its own."""

    def __init__(self, home: Path, hub: FakeHub) -> None:
        self.home = home
        self.env = os.environ | {
            "VESTAL_HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
        }
        self.env.pop("HF_TOKEN", None)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "mlx_server.model_store", "--json", *arguments],
            env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str, **env: str) -> tuple[int, list[dict[str, Any]]]:
        process = self.start(*arguments, **env)
        out, errors = process.communicate(timeout=110)
        assert "Traceback" not in errors, errors
        return process.returncode, [json.loads(line) for line in out.splitlines()]

    def partial_bytes(self) -> int:
        """Return the size of the partial downloads, which may be renamed meanwhile."""
        total = 0
        for folder, _, names in os.walk(self.home):  # `Path.rglob` fails if a folder vanishes
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    if name.endswith(".vestal-incomplete"):
                        total += os.stat(os.path.join(folder, name)).st_size
        return total

    def until_partial(self, least_bytes: int) -> None:
        """Return when a part of the weights is on the disk."""
        for _ in looks(60):
            if self.partial_bytes() > least_bytes:
                return
        raise AssertionError("nothing was downloaded")


def until_idle(hub: FakeHub) -> None:
    for _ in looks(60):
        if not hub.sending:
            return
    raise AssertionError("the hub is still sending")


@pytest.fixture
def puller(tmp_path: Path, hub: FakeHub) -> Puller:
    hub.repositories, hub.lasts_s, hub.tokens = {}, 0.0, set()
    hub.sent.clear()
    return Puller(tmp_path / "home", hub)


def test_pull_after_a_killed_pull_downloads_only_the_rest(puller, hub):
    """The hub's library deletes a partial download: earlier, 40 GB were downloaded anew after each kill."""
    files = model_files(16 * MIB)
    hub.repositories["org/big"] = FakeRepository(files)
    hub.lasts_s = 20.0  # so long that a busy machine kills it before its end
    process = puller.start("pull", "org/big")
    puller.until_partial(3 * MIB)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = puller.partial_bytes()
    until_idle(hub)  # it has noticed
    hub.sent.clear()
    hub.lasts_s = 0.0
    (partial,) = puller.home.rglob("*.vestal-incomplete")
    partial.with_name(f"{'0' * 64}.vestal-incomplete").write_bytes(b"of an earlier revision")
    code, lines = puller.run("pull", "org/big")
    assert code == 0, lines
    until_idle(hub)  # it has counted the last bytes
    rest = hub.sent[f"org/big/{WEIGHTS}"] - 100_001  # the header was read again
    assert rest == len(files[WEIGHTS]) - kept
    assert not list(puller.home.rglob("*.vestal-incomplete"))
    (snapshot,) = (puller.home / "hf").rglob(f"snapshots/*/{WEIGHTS}")
    assert snapshot.read_bytes() == files[WEIGHTS]
    assert (lines[-1]["fraction"], lines[-1]["sentence"]) == (1.0, "Ready.")


def test_pull_ended_by_sigterm_leaves_the_partial_download_and_no_staging_folder(puller, hub):
    hub.repositories["org/big"] = FakeRepository(model_files(16 * MIB))
    hub.lasts_s = 60.0
    process = puller.start("pull", "org/big")
    puller.until_partial(0)
    process.terminate()
    out, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in errors
    assert puller.partial_bytes() > 0
    assert [path.name for path in (puller.home / "models").iterdir()] == [".lock"]


def test_pull_states_the_memory_a_model_needs_and_refuses_each_unusable_model_with_a_reason(puller, hub):
    fits = model_files(200_000, max_position_embeddings=2048)
    hub.repositories = {
        "org/fits": FakeRepository(fits),
        "org/gated": FakeRepository(model_files(), gated=True),
        "org/damaged": FakeRepository(model_files(300_000), damaged=frozenset({WEIGHTS})),
        "org/huge": FakeRepository(model_files(8 * MIB)),
        "org/torch": FakeRepository({"config.json": fits["config.json"], "pytorch_model.bin": b"x"}),
        "org/odd": FakeRepository(fits | {"config.json": b'{"model_type": "albert"}'}),
        "org/full": FakeRepository(model_files(), announced={"model.safetensors": 2**50}),
    }
    names = ("org/fits", "org/gated", "org/damaged", "org/huge", "org/torch", "org/odd", "org/full")
    code, lines = puller.run(
        "pull", *names, "org/gone", "hf:org/fits@v9", VESTAL_MLX__MEMORY_LIMIT="142m"
    )  # fmt: skip
    assert code == 1
    said = [
        line["sentence"] for line in lines if line.get("model") == "org/fits:latest" and "sentence" in line
    ]
    assert said[0] == "Asking the hub what org/fits needs."
    assert said[1].startswith("org/fits fits: 0.1 of 0.1 GiB with 2k context")
    assert said[1].endswith(" KiB to download.")
    assert said[-1] == "Ready."
    errors = {line["model"]: line["error"] for line in lines if "error" in line}
    codes = {name: error["code"] for name, error in errors.items()}
    assert codes == {
        "org/gated": "gated_repository",
        "org/damaged": "checksum_mismatch",
        "org/huge": "insufficient_memory",
        "org/torch": "not_a_model",
        "org/odd": "not_a_model",
        "org/full": "disk_full",
        "org/gone": "model_not_found",
        "hf:org/fits@v9": "revision_not_found",
    }
    assert (
        f"{hub.url}/org/gated" in errors["org/gated"]["remedy"]
        and "HF_TOKEN" in errors["org/gated"]["remedy"]
    )
    assert (
        "does not fit: it needs" in errors["org/huge"]["message"]
        and "--force" in errors["org/huge"]["remedy"]
    )
    assert "no weights" in errors["org/torch"]["message"]
    assert "albert" in errors["org/odd"]["message"]
    assert "TiB of disk" in errors["org/full"]["message"] and "HF_HOME" in errors["org/full"]["remedy"]
    assert "v9" in errors["hf:org/fits@v9"]["message"]
    for name in ("org/huge", "org/odd"):
        assert hub.sent[f"{name}/{WEIGHTS}"] <= 100_001, "only the header of the weights was read"
    assert hub.sent[f"org/full/{WEIGHTS}"] <= 200_000 + 1000
    assert not list(puller.home.rglob("*.vestal-incomplete"))


def test_pull_of_a_gated_model_needs_a_valid_token_and_force_turns_too_little_memory_into_a_warning(
    puller, hub
):
    hub.repositories["org/huge"] = FakeRepository(model_files(8 * MIB), gated=True)
    code, lines = puller.run("pull", "org/huge", VESTAL_MLX__MEMORY_LIMIT="121m", HF_TOKEN="hf_wrong")
    assert (code, lines[-1]["error"]["code"]) == (1, "unauthorized")
    assert "HF_TOKEN" in lines[-1]["error"]["remedy"]
    hub.tokens = {"hf_right"}
    code, lines = puller.run(
        "pull", "--force", "org/huge", VESTAL_MLX__MEMORY_LIMIT="121m", HF_TOKEN="hf_right"
    )
    assert code == 0, lines
    assert any("does not fit" in line["sentence"] for line in lines)
