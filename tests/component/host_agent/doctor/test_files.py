"""Diagnoses of the cache, models, home, disk and logs, on real damaged files and full disks."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.doctor.installation import disk_full, home_folder
from host_agent.doctor.memory import metal
from host_agent.doctor.models import corrupt_cache, missing_model
from mlx_server.engine.prompt_cache.blob import Tensor, encode
from tests.component.host_agent.doctor.conftest import faults
from vestal.config import Config

RECORDED = Path(__file__).resolve().parents[3] / "recorded" / "logs"
REPO = Path(__file__).resolve().parents[4]


@pytest.fixture
def config(configure: Callable[..., Config]) -> Config:
    made = configure()
    made.home.prepare()
    return made


def block(folder: Path, key: str, data: bytes = b"x" * 64) -> Path:
    """Write a file of the prompt cache as the engine does."""
    path = folder / corrupt_cache.BLOCKS_FOLDER / f"{key}.safetensors"
    path.parent.mkdir(exist_ok=True)
    parts = encode({"keys": Tensor("U8", (len(data),), data)}, {"key": key, "model": "m:1", "tokens": "1,2"})
    path.write_bytes(b"".join(parts))
    return path


def test_cache_file_with_a_flipped_bit_is_reported_and_kept(config: Config):
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


def test_cache_file_under_another_name_is_a_fault(config: Config):
    path = block(config.home.cache, "a" * 8)
    path.rename(path.with_name("c" * 8 + ".safetensors"))
    (found,) = corrupt_cache.diagnose(config)
    assert "another block's" in found.evidence


def test_intact_cache_is_ok(config: Config):
    block(config.home.cache, "a" * 8)
    assert [found.level for found in corrupt_cache.diagnose(config)] == ["ok"]


def test_cache_too_large_for_the_time_is_checked_partly(config: Config):
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


def test_model_that_is_not_configured_is_reported_with_the_known_models(configure, user: Path):
    config = models(configure, user, {"mine": f"path:{weights(user / 'mine')}"}, "mine", "nobody:7b")
    (found,) = missing_model.diagnose(config)
    assert found.level == "fault"
    assert "mlx.preload asks for nobody:7b" in found.sentence
    assert "mine:latest" in found.evidence


def test_model_whose_folder_is_gone_is_reported_with_the_folder(configure, user: Path):
    folder = weights(user / "mine")
    config = models(configure, user, {"mine": f"path:{folder}"}, "mine")
    assert [found.level for found in missing_model.diagnose(config)] == ["ok"]
    shutil.rmtree(folder)
    (found,) = missing_model.diagnose(config)
    assert str(folder) in found.sentence
    assert "Correct its source" in found.remedy


def test_model_with_truncated_weights_is_reported_as_broken(configure, user: Path):
    config = models(configure, user, {"mine": f"path:{weights(user / 'mine', cut=True)}"}, "mine")
    (found,) = faults(missing_model.diagnose(config))
    assert "mine:latest is broken" in found.sentence
    assert "model.safetensors" in found.sentence


def test_model_not_fetched_is_a_note_before_vestal_has_run_and_a_fault_after(configure, user: Path):
    config = models(configure, user, {"big:8b": "hf:org/big"}, "big:8b")
    assert [(found.level, found.remedy) for found in missing_model.diagnose(config)] == [
        ("note", "`vestal models ensure big:8b`")
    ]
    config.home.prepare()
    config.home.journal_db.touch()
    assert [found.level for found in missing_model.diagnose(config)] == ["fault"]


def test_home_below_a_file_is_a_fault(configure, user: Path):
    (user / "file").write_text("")
    (found, *_) = faults(home_folder.diagnose(configure(VESTAL_HOME=user / "file" / "below")))
    assert f"{user / 'file'} is in the way" in found.sentence
    assert "VESTAL_HOME" in found.remedy


def test_check_of_an_existing_home_leaves_no_file(config: Config):
    before = sorted(config.home.root.rglob("*"))
    assert [found.level for found in home_folder.diagnose(config)] == ["ok"]
    assert sorted(config.home.root.rglob("*")) == before


def test_check_of_a_missing_home_does_not_make_it(configure, user: Path):
    config = configure(VESTAL_HOME=user / "new")
    assert [found.level for found in home_folder.diagnose(config)] == ["ok"]
    assert not config.home.root.exists()


def test_token_readable_by_others_is_a_fault(config: Config):
    config.home.token.write_text("secret")
    config.home.token.chmod(0o644)
    (found,) = faults(home_folder.diagnose(config))
    assert found.remedy == f"`chmod 600 {config.home.token}`"


def test_damaged_journal_is_a_fault_and_kept(config: Config):
    config.home.journal_db.write_bytes(b"no database" * 100)
    (found,) = faults(home_folder.diagnose(config))
    assert "journal is damaged" in found.sentence
    assert config.home.journal_db.read_bytes().startswith(b"no database"), "it is not changed"


CHECKS = """
import pathlib, sys
from host_agent.doctor.installation import disk_full, home_folder
folder = pathlib.Path(sys.argv[1])
print(disk_full.check_disk(folder).level, home_folder.check_folder(folder))
"""
MOUNT = 'mount -t tmpfs -o "$1" none "$2" || exit 99; exec "$3" -c "$4" "$2"'
NOT_MOUNTED = (1, 99)  # `unshare` is not allowed, or `mount` is not


def check_mounted_disk(folder: Path, options: str) -> str:
    """Mount a small file system, and return what the checks print there; skip where it cannot be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("no `unshare` to mount a small disk with")
    command = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", options, str(folder), sys.executable, CHECKS]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    if done.returncode in NOT_MOUNTED and "Traceback" not in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    return done.stdout + done.stderr


def test_disk_with_one_free_megabyte_is_a_fault(tmp_path: Path):
    assert check_mounted_disk(tmp_path, "size=1m") == "fault None\n"


def test_read_only_disk_is_a_fault(tmp_path: Path):
    assert "cannot be written (Read-only file system)" in check_mounted_disk(tmp_path, "ro")


def test_disk_of_several_folders_is_checked_once(config: Config):
    assert {found.name for found in disk_full.diagnose(config)} == {"disk_full"}


def test_log_lines_of_the_last_hour_about_contention_are_a_fault(config: Config):
    text = (RECORDED / "mlx_compiler.log").read_text()
    for then in ("1776188541.2", "1776188545.9"):
        text = text.replace(then, f"{time.time() - 60:.1f}")
    (config.home.logs / "engine.log").write_text(text)
    (found,) = metal.CONTENTION.diagnose(config)
    assert found.level == "fault"
    assert str(config.home.logs / "engine.log") in found.evidence


def test_log_of_ollama_is_read_and_old_lines_are_ignored(configure, user: Path):
    config = configure(VESTAL_OLLAMA__MANAGE="watch")
    log = user / ".ollama" / "logs" / "server.log"
    log.parent.mkdir(parents=True)
    text = (RECORDED / "ollama_metal_memory.log").read_text()
    log.write_text(text)
    assert faults(metal.OUT_OF_MEMORY.diagnose(config)) == [], "the lines are months old"
    log.write_text(text.replace("2026-04-14T14:42", time.strftime("%Y-%m-%dT%H:%M")).replace("-03:00", ""))
    (found,) = faults(metal.OUT_OF_MEMORY.diagnose(config))
    assert "server.log" in found.evidence
    assert "smaller model" in found.remedy
