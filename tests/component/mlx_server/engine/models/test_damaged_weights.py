"""A real engine whose weights have changed since they were installed, in a file of the same size and time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mlx_server.model_store import layout
from mlx_server.model_store.files import integrity
from mlx_server.protocol import Done, Failed, Token, Unloaded
from tests.component.mlx_server.engine.conftest import CHAT, Engine, chat

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]


def flip_a_bit_of_the_last_tensor(weights: Path) -> None:
    times = weights.stat().st_atime_ns, weights.stat().st_mtime_ns
    with weights.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        (last,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([last ^ 1]))
    os.utime(weights, ns=times)


def test_model_found_damaged_during_an_answer_fails_the_answer_and_is_not_loaded_again(
    home: Path, small_models_dir: Path, tmp_path: Path
):
    models = tmp_path / "models"
    shutil.copytree(small_models_dir, models)
    (weights,) = (models / "smollm2__135m").glob("*.safetensors")
    manifest = layout.read_manifest(weights.parent)
    manifest[integrity.MANIFEST_KEY] = integrity.compute_checksums(weights.parent)
    (weights.parent / layout.MANIFEST).write_text(json.dumps(manifest))
    flip_a_bit_of_the_last_tensor(weights)
    engine = Engine(home, {"VESTAL_MODELS_DIR": str(models), "MLX_PRELOAD_MODELS": CHAT})
    try:
        for attempt in range(10):
            asked = f"cut {attempt}"
            engine.send(chat(asked, "Tell me a very long story.", max_tokens=4000))
            failed = engine.answer(asked, Done)
            if isinstance(failed, Failed):
                break  # else the thread that reads the weights again, at the lowest priority, takes longer
        assert engine.tokens(asked) and failed.code == "model_load_failed"
        assert f"{weights}: it has changed" in failed.message
        unloaded = engine.wait(lambda e: isinstance(e, Unloaded))
        assert (unloaded.model, unloaded.damage) == (CHAT, failed.message)
        engine.send(chat("again", "Hello", max_tokens=2))
        assert "it has changed" in engine.answer("again", Token).message
    finally:
        engine.close()
