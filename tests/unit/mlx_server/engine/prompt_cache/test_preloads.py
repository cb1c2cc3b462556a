"""Blocks are read from disk into RAM in advance, the prompt that was used last before all others."""

import shutil

import pytest

from mlx_server.engine.prompt_cache import preload_order
from mlx_server.engine.prompt_cache.block import BlockRun
from mlx_server.engine.prompt_cache.preloads import Preloads
from tests.prompt_cache_model import (
    BLOCK_BYTES,
    MANY,
    OTHER_PROMPT,
    PROMPT,
    SIZE,
    WHOLE,
    Model,
    RecordingFolder,
    files,
    is_right,
    restarted,
)


def preload(model, available=MANY):
    """Read all slices of a model's blocks, and return the bytes in RAM."""
    model.store.preload(model.keys, model.tags, lambda run: None)
    while job := model.store.preload_job(available):
        job()
    return model.store.ram_bytes


def test_preloaded_cache_blocks_are_found_in_ram(open_store):
    model = restarted(open_store, PROMPT)
    assert preload(model) == 5 * BLOCK_BYTES
    assert model.get(PROMPT) == WHOLE
    assert (model.store.counts.hits_ram, model.store.counts.hits_disk) == (5, 0)
    assert not model.store.has_preloads
    assert preload(Model(model.store, "other")) == 5 * BLOCK_BYTES  # of which there is nothing


def test_cache_preload_reads_newest_prompts_only_up_to_half_of_the_ram_tier(open_store):
    model = restarted(open_store, OTHER_PROMPT, PROMPT, ram=16 * BLOCK_BYTES)
    size = model.store._disk.size_of(model.store._disk.newest()[0])  # a small file is mostly header
    whole = Model(open_store(ram=2 * 5 * size + 2))
    assert 5 * BLOCK_BYTES <= preload(whole) < 10 * BLOCK_BYTES
    assert whole.get(PROMPT) == WHOLE
    assert (whole.store.counts.hits_ram, whole.store.counts.hits_disk) == (5, 0)
    assert whole.get(OTHER_PROMPT) == WHOLE
    assert whole.store.counts.hits_disk > 0
    assert preload(model, available=size - 1) == 0


def test_preloaded_cache_blocks_are_evicted_before_used_blocks(open_store):
    model = restarted(open_store, PROMPT)
    model.keep(OTHER_PROMPT)
    assert preload(model) == 10 * BLOCK_BYTES
    model.store.free_ram(5 * BLOCK_BYTES)
    assert model.get(OTHER_PROMPT) == WHOLE
    assert (model.store.counts.hits_ram, model.store.counts.hits_disk) == (5, 0)


def test_freeing_ram_ends_the_preload_of_cache_blocks(open_store):
    model = restarted(open_store, PROMPT)
    model.store.preload(model.keys, model.tags, lambda run: None)
    model.store.free_ram(1)
    assert model.store.preload_job(MANY) is None


def test_cache_preload_drops_damaged_and_missing_files(open_store, tmp_path):
    model = restarted(open_store, PROMPT)
    newest = model.store._disk.newest()
    folder = tmp_path / "prompts"
    (folder / f"{newest[1]}.safetensors").write_bytes(b"no block")
    (folder / f"{newest[2]}.safetensors").unlink()
    assert preload(model) == 3 * BLOCK_BYTES
    assert (model.store.counts.broken, model.store.counts.missing) == (1, 1)
    assert model.get(PROMPT) == SIZE
    model.store.persist(60.0)
    assert len(files(tmp_path)) == 3


def test_cache_preload_ends_when_its_folder_is_deleted(open_store, tmp_path):
    model = restarted(open_store, PROMPT)
    model.store.preload(model.keys, model.tags, lambda run: None)
    job = model.store.preload_job(MANY)
    job()
    shutil.rmtree(tmp_path / "prompts")
    assert model.store.preload_job(MANY) is None
    assert (model.store.ram_bytes, model.get(PROMPT)) == (0, 0)


def test_cache_preload_reads_and_prepares_the_prompt_used_last_before_all_others(
    open_store, tmp_path, monkeypatch
):
    monkeypatch.setattr(preload_order, "SLICE_BYTES", 1)  # each job reads one file
    first = Model(open_store())
    for prompt in ([*PROMPT[:8], *range(50, 58)], PROMPT, OTHER_PROMPT):
        first.keep(prompt)
    assert first.get(PROMPT[:8]) == 8  # its other blocks are now older than those of OTHER_PROMPT
    first.store.persist(60.0)
    folder, prepared = RecordingFolder(tmp_path / "prompts"), []
    model = Model(open_store(folder=folder))
    model.store.preload(model.keys, model.tags, lambda run: prepared.append((run, len(folder.reads))))
    while job := model.store.preload_job(MANY):
        job()
    ((run, reads),) = prepared
    assert run.ids == tuple(PROMPT[:WHOLE])
    assert is_right(run, PROMPT)
    assert folder.reads[:reads] == model.keys.of_blocks(PROMPT)
    assert folder.reads[reads:-2] == model.keys.of_blocks(OTHER_PROMPT)
    assert len(folder.reads) == len(set(folder.reads)) == 12


def test_cache_preload_does_not_read_blocks_that_are_already_in_ram(open_store, tmp_path):
    folder = RecordingFolder(tmp_path / "prompts")
    model = restarted(open_store, OTHER_PROMPT, PROMPT, folder=folder)
    assert model.get(PROMPT) == WHOLE
    assert preload(model) == 10 * BLOCK_BYTES
    assert folder.reads == [*model.keys.of_blocks(PROMPT), *model.keys.of_blocks(OTHER_PROMPT)]


def test_cache_preload_job_prepares_the_last_used_prompt_and_returns_a_function_that_keeps_it(open_store):
    model, kept = restarted(open_store, OTHER_PROMPT, PROMPT), list[int]()
    model.store.preload(model.keys, model.tags, lambda run: lambda: kept.append(run.tokens))
    results = []
    while job := model.store.preload_job(MANY):
        results.append(job())
    _, keep, _ = results  # of the prompt that was used last, its preparation, and the other prompt
    assert kept == []
    keep()
    assert kept == [WHOLE]


def test_prompt_prepared_by_a_job_is_not_kept_if_memory_was_freed_meanwhile(open_store):
    model, kept = restarted(open_store, PROMPT), list[int]()
    model.store.preload(model.keys, model.tags, lambda run: lambda: kept.append(run.tokens))
    model.store.preload_job(MANY)()
    keep = model.store.preload_job(MANY)()
    model.store.free_ram(1)
    keep()
    assert kept == []


def test_prompt_that_cannot_be_read_whole_is_not_urgent_once_its_files_have_been_read(open_store, tmp_path):
    model, prepared = restarted(open_store, OTHER_PROMPT, PROMPT), list[BlockRun]()
    newest = model.store._disk.newest()
    (tmp_path / "prompts" / f"{newest[2]}.safetensors").write_bytes(b"no block")
    model.store.preload(model.keys, model.tags, prepared.append)
    assert model.store.has_urgent_preloads
    model.store.preload_job(MANY)()
    model.store.preload_job(MANY)()
    assert (model.store.has_urgent_preloads, prepared) == (False, [])
    assert model.store.preload_job(MANY) is None


def test_cached_snapshots_alone_are_not_urgent(open_store):
    first = Model(open_store())
    first.keep_snapshot(PROMPT)
    first.store.persist(60.0)
    model = Model(open_store())
    model.store.preload(model.keys, model.tags, lambda run: None)
    assert (model.store.has_preloads, model.store.has_urgent_preloads) == (True, False)


def test_cache_preload_is_urgent_only_until_the_prompt_used_last_is_prepared(open_store, monkeypatch):
    monkeypatch.setattr(preload_order, "SLICE_BYTES", 1)
    model, prepared = restarted(open_store, OTHER_PROMPT, PROMPT), list[BlockRun]()
    assert not model.store.has_urgent_preloads
    model.store.preload(model.keys, model.tags, prepared.append)
    while not prepared:
        assert model.store.has_urgent_preloads
        job = model.store.preload_job(MANY)
        assert prepared == []  # only the job prepares it, on its own thread
        job()
    assert (model.store.has_urgent_preloads, model.store.has_preloads) == (False, True)
    while job := model.store.preload_job(MANY):
        job()
        assert not model.store.has_urgent_preloads
    assert len(prepared) == 1


def test_cache_preload_of_two_models_prepares_both_newest_prompts_before_reading_others(
    open_store, tmp_path, monkeypatch
):
    monkeypatch.setattr(preload_order, "SLICE_BYTES", 1)
    first = open_store()
    for prompt in (OTHER_PROMPT, PROMPT):
        for identity in ("model", "other"):
            Model(first, identity).keep(prompt)
            first.persist(60.0)
    folder, prepared = RecordingFolder(tmp_path / "prompts"), []
    store = open_store(folder=folder)
    one, two = Model(store), Model(store, "other")
    for model in (one, two):
        store.preload(
            model.keys,
            model.tags,
            lambda run, model=model: prepared.append((is_right(run, PROMPT, model.salt), len(folder.reads))),
        )
    while job := store.preload_job(MANY):
        job()
    assert prepared == [(True, 5), (True, 10)]
    assert folder.reads[:10] == [*one.keys.of_blocks(PROMPT), *two.keys.of_blocks(PROMPT)]
    assert sorted(folder.reads[10:]) == sorted(
        [*one.keys.of_blocks(OTHER_PROMPT), *two.keys.of_blocks(OTHER_PROMPT)]
    )


@pytest.mark.parametrize(("available", "calls"), [(5 * BLOCK_BYTES - 1, 0), (5 * BLOCK_BYTES, 1)])
def test_cache_preload_prepares_no_prompt_larger_than_the_available_memory(open_store, available, calls):
    model, prepared = Model(open_store()), list[BlockRun]()
    model.keep(PROMPT)  # it is in RAM, so no file need be read
    model.store.preload(model.keys, model.tags, prepared.append)
    while job := model.store.preload_job(available):
        job()
    assert len(prepared) == calls
    assert not model.store.has_urgent_preloads


def test_cache_preload_prepares_no_prompt_larger_than_half_of_the_ram_limit(open_store):
    model, prepared = Model(open_store(ram=10 * BLOCK_BYTES - 1)), list[BlockRun]()
    model.keep(PROMPT)
    model.store.preload(model.keys, model.tags, prepared.append)
    assert model.store.preload_job(MANY) is None
    assert (prepared, model.store.ram_bytes) == ([], 5 * BLOCK_BYTES)


@pytest.mark.parametrize(("most", "calls"), [(5 * BLOCK_BYTES - 1, 0), (5 * BLOCK_BYTES, 1)])
def test_prompt_beyond_the_size_limit_for_caches_of_ended_requests_is_read_but_not_prepared(
    open_store, most, calls
):
    model, prepared = Model(open_store()), list[BlockRun]()
    model.keep(PROMPT)
    preloads = Preloads(model.store._ram, model.store._disk, model.store._reader)
    preloads.add(model.keys, model.tags, prepared.append)
    while job := preloads.next_job(MANY, most):
        job()
    assert len(prepared) == calls


@pytest.mark.parametrize("block", [0, 2, 4])
@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_cache_preload_prepares_no_prompt_of_which_a_block_cannot_be_read(open_store, tmp_path, block, fault):
    model, prepared = restarted(open_store, PROMPT), list[BlockRun]()
    path = tmp_path / "prompts" / f"{model.keys.of_blocks(PROMPT)[block]}.safetensors"
    if fault == "damaged":
        path.write_bytes(b"no block")
    else:
        path.unlink()
    model.store.preload(model.keys, model.tags, prepared.append)
    while job := model.store.preload_job(MANY):
        job()
    assert prepared == []
    assert model.store.ram_bytes == 4 * BLOCK_BYTES
    assert not model.store.has_urgent_preloads


def test_cache_preload_prepares_nothing_of_a_model_that_has_only_snapshots(open_store):
    first = Model(open_store())
    first.keep_snapshot(PROMPT)
    first.store.persist(60.0)
    model, prepared = Model(open_store()), list[BlockRun]()
    model.store.preload(model.keys, model.tags, prepared.append)
    while job := model.store.preload_job(MANY):
        job()
    assert prepared == []
    assert model.get(PROMPT) == len(PROMPT)
    assert model.store.counts.hits_ram == 1


def test_last_used_prompt_is_not_prepared_if_ram_was_freed_after_its_blocks_were_read(open_store):
    model, prepared = restarted(open_store, PROMPT), list[BlockRun]()
    model.store.preload(model.keys, model.tags, prepared.append)
    model.store.preload_job(MANY)()
    model.store.free_ram(1)
    assert model.store.preload_job(MANY) is None
    assert (prepared, model.store.has_urgent_preloads) == ([], False)
