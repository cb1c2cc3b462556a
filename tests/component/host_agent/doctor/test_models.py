"""Missing and broken models, and corrupt files of the prompt cache."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from host_agent.doctor.models import corrupt_cache, missing_model
from mlx_server.engine.prompt_cache.blob import Tensor, encode
from tests.component.host_agent.doctor.conftest import faults
from vestal.config import Config


def block(folder: Path, key: str, data: bytes = b"x" * 64) -> Path:
    """Write a file of the prompt cache as the engine does."""
    path = folder / corrupt_cache.BLOCKS_FOLDER / f"{key}.safetensors"
    path.parent.mkdir(exist_ok=True)
    parts = encode({"keys": Tensor("U8", (len(data),), data)}, {"key": key, "model": "m:1", "tokens": "1,2"})
    path.write_bytes(b"".join(parts))
    return path


def test_doctor_reports_a_prompt_cache_file_with_a_flipped_bit_and_does_not_delete_it(config: Config):
    block(config.home.cache, "a" * 8)
    flipped = block(config.home.cache, "b" * 8)
    raw = bytearray(flipped.read_bytes())
    raw[-1] ^= 1
    flipped.write_bytes(raw)
    (found,) = corrupt_cache.diagnose(config)
    assert found.level == "fault"
    assert found.sentence == "1 of 2 files of the prompt cache are corrupt."
    assert flipped.name in found.evidence and "checksum" in found.evidence
    assert "vestal cache verify" in found.remedy
    assert flipped.exists()


def test_doctor_reports_a_renamed_prompt_cache_file_as_a_fault(config: Config):
    path = block(config.home.cache, "a" * 8)
    path.rename(path.with_name("c" * 8 + ".safetensors"))
    (found,) = corrupt_cache.diagnose(config)
    assert "another block's" in found.evidence


def test_doctor_reports_an_intact_prompt_cache_as_ok(config: Config):
    block(config.home.cache, "a" * 8)
    assert [found.level for found in corrupt_cache.diagnose(config)] == ["ok"]


def test_doctor_checks_only_part_of_a_prompt_cache_too_large_for_its_time_limit(config: Config):
    for number in range(9):
        block(config.home.cache, f"{number:08}")
    clock = itertools.count(0.0, 1.0)
    found = corrupt_cache.check_cache(config.home.cache, lambda: next(clock), check_for_s=3.0)
    rest = "6 more are left for `vestal cache verify`"
    assert found.sentence == f"3 files of the prompt cache are intact; {rest}."


def weights(folder: Path, *, cut: bool = False) -> Path:
    """Write a model's folder; with `cut`, its weights end too early."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(16)
    (folder / "model.safetensors").write_bytes(data[:-9] if cut else data)
    return folder


def models(configure: Callable[..., Config], user: Path, sources: dict[str, str], *preload: str) -> Config:
    listed = {name: {"source": source} for name, source in sources.items()}
    settings = {"models": listed, "mlx": {"preload": list(preload)}, "orchestrator": {"mode": "off"}}
    (user / "vestal.yaml").write_text(json.dumps(settings))
    return configure(VESTAL_MLX__MODELS_FOLDER=user / "mlx-models")


def test_doctor_reports_an_unknown_model_in_the_preload_setting_and_lists_the_known_models(
    configure, user: Path
):
    config = models(configure, user, {"mine": f"path:{weights(user / 'mine')}"}, "mine", "nobody:7b")
    (found,) = missing_model.diagnose(config)
    assert found.level == "fault"
    assert "mlx.preload asks for nobody:7b" in found.sentence
    assert "mine:latest" in found.evidence


def test_doctor_reports_a_model_whose_folder_was_deleted_with_the_folders_path(configure, user: Path):
    folder = weights(user / "mine")
    config = models(configure, user, {"mine": f"path:{folder}"}, "mine")
    assert [found.level for found in missing_model.diagnose(config)] == ["ok"]
    shutil.rmtree(folder)
    (found,) = missing_model.diagnose(config)
    assert str(folder) in found.sentence
    assert "Correct its source" in found.remedy


def test_doctor_reports_a_model_with_truncated_weights_as_broken(configure, user: Path):
    config = models(configure, user, {"mine": f"path:{weights(user / 'mine', cut=True)}"}, "mine")
    (found,) = faults(missing_model.diagnose(config))
    assert "mine:latest is broken" in found.sentence
    assert "model.safetensors" in found.sentence


def test_doctor_reports_an_unfetched_model_as_a_note_before_the_first_run_and_then_as_a_fault(
    configure, user: Path
):
    config = models(configure, user, {"big:8b": "hf:org/big"}, "big:8b")
    assert [(found.level, found.remedy) for found in missing_model.diagnose(config)] == [
        ("note", "`vestal models ensure big:8b`")
    ]
    config.home.prepare()
    config.home.journal_db.touch()
    assert [found.level for found in missing_model.diagnose(config)] == ["fault"]


def test_doctor_names_the_setting_of_a_configured_reranker_that_is_not_installed(configure, user: Path):
    for name in ("chat", "vectors"):
        weights(user / "mlx-models" / name)
    settings = {"chat_model": "chat", "embed_model": "vectors", "rerank_model": "nobody:7b"}
    (user / "vestal.yaml").write_text(json.dumps({"mlx": {"preload": []}, "orchestrator": settings}))
    (found,) = faults(missing_model.diagnose(configure(VESTAL_MLX__MODELS_FOLDER=user / "mlx-models")))
    assert "orchestrator.rerank_model asks for nobody:7b" in found.sentence


def test_doctor_reports_no_fault_of_a_hidden_file_that_macos_keeps_with_a_cached_block(config: Config):
    path = block(config.home.cache, "a" * 8)
    path.with_name(f"._{path.name}").write_bytes(bytes(4096))
    (found,) = corrupt_cache.diagnose(config)
    assert found.sentence == "1 files of the prompt cache are intact."
