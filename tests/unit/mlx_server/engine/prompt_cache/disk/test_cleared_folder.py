"""The cache folder is deleted while blocks wait to be written, or cannot be created again."""

from __future__ import annotations

import shutil
import threading

import pytest

from mlx_server.engine.prompt_cache.disk import disk_tier
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.store import BlockStore
from tests.prompt_cache_model import Model
from tests.unit.mlx_server.engine.prompt_cache.test_store import MANY, PROMPT, WHOLE, Clock, files


@pytest.fixture
def busy(tmp_path):
    """Return a model, and an event before which the disk of its prompt cache is busy."""
    is_free, store = threading.Event(), BlockStore(BlockFolder(tmp_path / "prompts"), MANY, MANY, Clock())

    def be_busy() -> None:
        is_free.wait(60)

    store._disk._writer.put(be_busy)
    yield Model(store), is_free
    is_free.set()
    store.close()


def test_cache_folder_deleted_and_not_creatable_leaves_prompts_cached_in_ram(tmp_path, capfd):
    """The folder of an unmounted disk once counted as deleted again at each request, which emptied RAM."""
    volume, clock = tmp_path / "volume", Clock()
    volume.mkdir()
    model = Model(BlockStore(BlockFolder(volume / "prompts"), MANY, MANY, clock))
    model.keep(PROMPT)
    model.store.persist(60.0)
    shutil.rmtree(volume)
    volume.write_text("")
    assert model.get(PROMPT) == 0
    for _ in range(3):
        model.keep(PROMPT)
        assert model.get(PROMPT) == WHOLE
    logged = capfd.readouterr().err
    assert (logged.count("cache_cleared"), logged.count("cache_not_written")) == (1, 1)
    volume.unlink()
    clock.now += disk_tier.PAUSE_AFTER_FAILURE_S
    assert model.store.persist(60.0) == 5
    model.store.close()


def test_cache_blocks_queued_before_the_folder_was_deleted_are_not_written_into_the_next_one(busy, tmp_path):
    """`vestal cache clear` deletes the folder, and what waits to be written must be deleted with it."""
    model, is_free = busy
    model.keep(PROMPT)
    shutil.rmtree(tmp_path / "prompts")
    assert model.get(PROMPT) == 0
    is_free.set()
    assert model.store.persist(60.0) == 0
    assert files(tmp_path) == []


def test_cache_blocks_stored_again_after_the_folder_was_deleted_are_written_and_found(busy, tmp_path):
    model, is_free = busy
    model.keep(PROMPT)
    shutil.rmtree(tmp_path / "prompts")
    assert model.get(PROMPT) == 0
    assert model.keep(PROMPT) == 5
    is_free.set()
    assert model.store.persist(60.0) == 5
    assert len(files(tmp_path)) == 5
    assert model.store.disk_bytes == sum(path.stat().st_size for path in files(tmp_path))
    model.store.free_ram(1 << 40)
    assert model.get(PROMPT) == WHOLE
