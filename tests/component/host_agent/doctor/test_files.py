"""Cache, models, home, disk, logs: what is wrong on disk, made wrong for real."""

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
from host_agent.doctor.memory import metal_contention, metal_out_of_memory
from host_agent.doctor.models import cache_check, corrupt_cache, missing_model
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
    """A file of the prompt cache, as the engine writes it."""
    path = folder / cache_check.PROMPTS / f"{key}.safetensors"
    path.parent.mkdir(exist_ok=True)
    parts = encode({"keys": Tensor("U8", (len(data),), data)}, {"key": key, "model": "m:1", "tokens": "1,2"})
    path.write_bytes(b"".join(parts))
    return path


def test_cache_with_a_flipped_bit_is_named_and_left_alone(config: Config):
    block(config.home.cache, "a" * 8)
    flipped = block(config.home.cache, "b" * 8)
    raw = bytearray(flipped.read_bytes())
    raw[-1] ^= 1
    flipped.write_bytes(raw)
    (found,) = corrupt_cache.look(config)
    assert found.level == "fault"
    assert found.sentence == "1 of 2 files of the prompt cache are corrupt"
    assert flipped.name in found.evidence and "checksum" in found.evidence
    assert "vestal cache verify" in found.remedy
    assert flipped.exists()


def test_cache_under_another_name_is_another_blocks(config: Config):
    path = block(config.home.cache, "a" * 8)
    path.rename(path.with_name("c" * 8 + ".safetensors"))
    (found,) = corrupt_cache.look(config)
    assert "another block's" in found.evidence


def test_cache_that_is_whole_is_well(config: Config):
    block(config.home.cache, "a" * 8)
    assert [found.level for found in corrupt_cache.look(config)] == ["ok"]


def test_cache_too_large_for_the_time_is_checked_in_part(config: Config):
    for number in range(9):
        block(config.home.cache, f"{number:08}")
    clock = itertools.count(0.0, 1.0)
    found = corrupt_cache.examine(config.home.cache, lambda: next(clock), for_s=3.0)
    assert (
        found.sentence == "3 files of the prompt cache are whole; 6 more were left for `vestal cache verify`"
    )


def weights(folder: Path, *, cut: bool = False) -> Path:
    """A model's folder; its weights may be cut off in the middle."""
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


def test_model_that_nobody_configured_is_named_with_those_there_are(configure, user: Path):
    config = models(configure, user, {"mine": f"path:{weights(user / 'mine')}"}, "mine", "nobody:7b")
    (found,) = missing_model.look(config)
    assert found.level == "fault"
    assert "mlx.preload asks for nobody:7b" in found.sentence
    assert "mine:latest" in found.evidence


def test_model_whose_folder_is_gone_is_named_with_the_folder(configure, user: Path):
    folder = weights(user / "mine")
    config = models(configure, user, {"mine": f"path:{folder}"}, "mine")
    assert [found.level for found in missing_model.look(config)] == ["ok"]
    shutil.rmtree(folder)
    (found,) = missing_model.look(config)
    assert str(folder) in found.sentence
    assert "correct its source" in found.remedy


def test_model_that_is_cut_off_is_broken(configure, user: Path):
    config = models(configure, user, {"mine": f"path:{weights(user / 'mine', cut=True)}"}, "mine")
    (found,) = faults(missing_model.look(config))
    assert "mine:latest is broken" in found.sentence
    assert "model.safetensors" in found.sentence


def test_model_not_fetched_is_a_fault_once_vestal_has_run(configure, user: Path):
    config = models(configure, user, {"big:8b": "hf:org/big"}, "big:8b")
    assert [(found.level, found.remedy) for found in missing_model.look(config)] == [
        ("note", "`vestal models ensure big:8b`")
    ]
    config.home.prepare()
    config.home.journal_db.touch()
    assert [found.level for found in missing_model.look(config)] == ["fault"]


def test_home_below_a_file_is_named(configure, user: Path):
    (user / "file").write_text("")
    (found, *_) = faults(home_folder.look(configure(VESTAL_HOME=user / "file" / "below")))
    assert f"{user / 'file'} is in the way" in found.sentence
    assert "VESTAL_HOME" in found.remedy


def test_home_that_is_there_is_tried_and_nothing_stays(config: Config):
    before = sorted(config.home.root.rglob("*"))
    assert [found.level for found in home_folder.look(config)] == ["ok"]
    assert sorted(config.home.root.rglob("*")) == before


def test_home_that_is_not_there_is_not_made(configure, user: Path):
    config = configure(VESTAL_HOME=user / "new")
    assert [found.level for found in home_folder.look(config)] == ["ok"]
    assert not config.home.root.exists()


def test_token_that_others_may_read_is_a_fault(config: Config):
    config.home.token.write_text("secret")
    config.home.token.chmod(0o644)
    (found,) = faults(home_folder.look(config))
    assert found.remedy == f"`chmod 600 {config.home.token}`"


def test_journal_that_is_damaged_is_named(config: Config):
    config.home.journal_db.write_bytes(b"no database" * 100)
    (found,) = faults(home_folder.look(config))
    assert "journal is damaged" in found.sentence
    assert config.home.journal_db.read_bytes().startswith(b"no database"), "it is only looked at"


LOOKS = """
import pathlib, sys
from host_agent.doctor import disk_full, home_folder
folder = pathlib.Path(sys.argv[1])
print(disk_full.examine(folder).level, home_folder.judge(folder))
"""
MOUNT = 'mount -t tmpfs -o "$1" none "$2" || exit 99; exec "$3" -c "$4" "$2"'
NOT_MOUNTED = (1, 99)  # `unshare` is not allowed, or `mount` is not


def small_disk(folder: Path, options: str) -> str:
    """What is told of a real, small file system; skipped where none can be mounted."""
    if shutil.which("unshare") is None:
        pytest.skip("no `unshare` to mount a small disk with")
    command = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", options, str(folder), sys.executable, LOOKS]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    if done.returncode in NOT_MOUNTED and "Traceback" not in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    return done.stdout + done.stderr


def test_disk_with_a_megabyte_left_is_a_fault(tmp_path: Path):
    assert small_disk(tmp_path, "size=1m") == "fault None\n"


def test_disk_that_is_read_only_cannot_be_written(tmp_path: Path):
    assert "cannot be written (Read-only file system)" in small_disk(tmp_path, "ro")


def test_disk_of_this_machine_is_looked_at_once(config: Config):
    assert {found.name for found in disk_full.look(config)} == {"disk_full"}


def test_log_of_the_last_hour_that_tells_of_metal_is_a_fault(config: Config):
    text = (RECORDED / "mlx_compiler.log").read_text()
    for then in ("1776188541.2", "1776188545.9"):
        text = text.replace(then, f"{time.time() - 60:.1f}")
    (config.home.logs / "engine.log").write_text(text)
    (found,) = metal_contention.look(config)
    assert found.level == "fault"
    assert str(config.home.logs / "engine.log") in found.evidence


def test_log_of_ollama_is_read_too_and_old_lines_are_not(configure, user: Path):
    config = configure(VESTAL_OLLAMA__MANAGE="watch")
    log = user / ".ollama" / "logs" / "server.log"
    log.parent.mkdir(parents=True)
    text = (RECORDED / "ollama_metal_memory.log").read_text()
    log.write_text(text)
    assert faults(metal_out_of_memory.look(config)) == [], "that was months ago"
    log.write_text(text.replace("2026-04-14T14:42", time.strftime("%Y-%m-%dT%H:%M")).replace("-03:00", ""))
    (found,) = faults(metal_out_of_memory.look(config))
    assert "server.log" in found.evidence
    assert "smaller model" in found.remedy
