"""All tiers: what is stored is found, within the limits; any damage to a file is a miss."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from mlx_server.engine.prompt_cache.disk import disk_tier
from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from tests.prompt_cache_model import (
    BLOCK_BYTES,
    MANY,
    PROMPT,
    SIZE,
    TAGS,
    WHOLE,
    Clock,
    Model,
    RecordingFolder,
    files,
    restarted,
)


class FullFolder(BlockFolder):
    """A folder whose writes fail as on a full disk while `full` is True."""

    full = True

    def write(self, key, parts):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(key, parts)


def test_stored_cache_blocks_are_found_as_far_as_a_prompt_matches(open_store):
    model = Model(open_store())
    assert model.get(PROMPT) == 0
    model.keep(PROMPT)
    assert model.get(PROMPT) == WHOLE
    assert model.get(PROMPT[:9]) == 9  # the third block's first token can be had
    assert model.get([*PROMPT[:10], 99, 98, 97]) == 10
    assert model.get([99, *PROMPT]) == 0
    assert Model(model.store, "other").get(PROMPT) == 0


def test_persisted_cache_blocks_are_found_after_a_restart(open_store, tmp_path):
    first = Model(open_store())
    first.keep(PROMPT)
    assert first.store.persist(60.0) in range(6)  # some may have been written before
    assert len(files(tmp_path)) == 5
    second = Model(open_store())
    assert second.get(PROMPT) == WHOLE
    assert (second.store.counts.hits_ram, second.store.counts.hits_disk) == (0, 5)
    assert second.get(PROMPT) == WHOLE
    assert second.store.counts.hits_ram == 5


def test_shared_beginning_of_two_prompts_is_cached_once(open_store, tmp_path):
    model = Model(open_store())
    assert model.keep([*range(16), *range(50, 58)]) == 6
    assert model.keep([*range(16), *range(80, 88)]) == 2
    model.store.persist(60.0)
    assert len(files(tmp_path)) == 8


def test_ten_turns_of_a_conversation_write_each_cache_block_once(open_store, tmp_path):
    store = open_store()
    model, tokens = Model(store), list[int]()
    for turn in range(10):
        tokens += [turn] * 43
        assert model.get(tokens) >= turn * 43 // SIZE * SIZE
        model.keep(tokens)
    store.persist(60.0)
    assert store.written_bytes == sum(path.stat().st_size for path in files(tmp_path))
    assert len(files(tmp_path)) == len(tokens) // SIZE


def test_cache_blocks_waiting_to_be_written_are_found_without_a_ram_tier(open_store):
    model = Model(open_store(ram=0))
    model.keep(PROMPT)
    assert model.get(PROMPT) == WHOLE
    model.store.persist(60.0)
    assert model.get(PROMPT) == WHOLE
    assert model.store.ram_bytes == 0


def test_cache_blocks_without_a_disk_tier_are_found_in_ram(open_store, tmp_path):
    model = Model(open_store(on_disk=0))
    model.keep(PROMPT)
    assert (model.get(PROMPT), model.store.persist(60.0)) == (WHOLE, 0)
    assert not (tmp_path / "prompts").exists()


def test_end_of_a_chain_of_cache_blocks_is_evicted_first_in_both_tiers(open_store, tmp_path):
    model = Model(open_store(ram=3 * BLOCK_BYTES, on_disk=0))
    model.keep(PROMPT)
    assert model.get(PROMPT) == 12
    on_disk = Model(open_store(ram=0, on_disk=1500))
    on_disk.keep(PROMPT)
    on_disk.store.persist(60.0)
    assert 0 < on_disk.get(PROMPT) < WHOLE
    assert sum(path.stat().st_size for path in files(tmp_path)) <= on_disk.store.disk_bytes <= 1500


def test_order_of_use_of_cache_blocks_survives_a_restart(open_store, tmp_path):
    model = Model(open_store(ram=0))
    model.keep([1] * 8)
    model.keep([2] * 8)
    model.store.persist(60.0)
    assert model.get([1] * 8) == 8
    model.store.persist(60.0)
    size = sum(path.stat().st_size for path in files(tmp_path))
    again = Model(open_store(ram=0, on_disk=size * 3 // 4))
    assert again.get([1] * 8) == 8
    assert again.get([2] * 8) < 8


@pytest.mark.parametrize("shortage", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_cache_file_that_cannot_be_read_for_lack_of_descriptors_or_memory_is_kept_for_later(
    open_store, shortage, monkeypatch
):
    """The files of a conversation's blocks were deleted as damaged, though only descriptors were short."""

    def fail(_file: Path) -> bytes:
        raise OSError(shortage, os.strerror(shortage))

    first = Model(open_store())
    first.keep(PROMPT)
    first.store.persist(60.0)
    second = Model(open_store())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        assert second.get(PROMPT) == 0
    assert second.get(PROMPT) == WHOLE


@pytest.mark.parametrize("fault", ["truncated", "flipped", "emptied", "removed", "swapped", "a folder"])
def test_damaged_cache_file_is_a_miss_and_is_written_again(open_store, tmp_path, fault, capfd):
    first = Model(open_store())
    first.keep(PROMPT)
    first.store.persist(60.0)
    third = tmp_path / "prompts" / (first.keys.of_blocks(PROMPT)[2] + ".safetensors")
    other = tmp_path / "prompts" / (first.keys.of_blocks(PROMPT)[3] + ".safetensors")
    data = bytearray(third.read_bytes())
    second = Model(open_store())
    match fault:
        case "truncated":
            third.write_bytes(data[:-5])
        case "flipped":
            data[-3] ^= 16
            third.write_bytes(data)
        case "emptied":
            third.write_bytes(b"")
        case "removed":
            third.unlink()
        case "swapped":
            third.write_bytes(other.read_bytes())
        case "a folder":
            third.unlink()
            third.mkdir()
    assert second.get(PROMPT) == 8
    assert ("cache_block_dropped" in capfd.readouterr().err) == (fault != "removed")
    assert second.keep(PROMPT) == 3
    assert second.get(PROMPT) == WHOLE
    second.store.persist(60.0)
    if fault != "a folder":
        assert Model(open_store()).get(PROMPT) == WHOLE


@pytest.mark.parametrize("fault", ["flipped", "removed"])
def test_cache_file_damaged_while_its_block_is_in_ram_is_one_miss_after_a_restart(
    open_store, tmp_path, fault
):
    """A block in RAM is served without a look at its file, so the harm shows at the next start, as a miss.

    Found by tests/stateful/test_prompt_cache.py. The miss costs one prefill; the block is then written again.
    """
    prompt = PROMPT[:SIZE]
    first = Model(open_store())
    first.keep(prompt)
    first.store.persist(60.0)
    (path,) = files(tmp_path)
    if fault == "flipped":
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.write_bytes(data)
    else:
        path.unlink()
    assert first.get(prompt) == SIZE  # from RAM
    assert first.keep(prompt) == 0
    first.store.persist(60.0)

    second = Model(open_store())
    assert second.get(prompt) == 0
    assert second.keep(prompt) == 1
    second.store.persist(60.0)
    assert Model(open_store()).get(prompt) == SIZE


def test_cache_file_of_another_model_under_the_right_name_is_a_miss(open_store, tmp_path):
    other, ours = Model(open_store(), "other"), Model(open_store(), "model")
    other.keep(PROMPT)
    other.store.persist(60.0)
    for theirs, name in zip(other.keys.of_blocks(PROMPT), ours.keys.of_blocks(PROMPT), strict=True):
        (tmp_path / "prompts" / f"{theirs}.safetensors").rename(tmp_path / "prompts" / f"{name}.safetensors")
    assert Model(open_store(), "model").get(PROMPT) == 0


def test_full_disk_keeps_cache_blocks_in_ram_and_logs_once_until_there_is_room(open_store, tmp_path, capfd):
    clock, full = Clock(), FullFolder(tmp_path / "prompts")
    model = Model(open_store(folder=full, clock=clock))
    model.keep(PROMPT)
    assert model.store.persist(60.0) == 0
    model.keep([*PROMPT[:WHOLE], *PROMPT])
    model.store.persist(60.0)
    assert capfd.readouterr().err.count("cache_not_written") == 1
    assert model.get(PROMPT[:WHOLE]) == WHOLE  # from RAM
    assert model.store.disk_bytes == 0
    full.full = False
    assert model.store.persist(60.0) == 0  # it rests
    clock.now += disk_tier.PAUSE_AFTER_FAILURE_S
    assert model.store.persist(60.0) == 10
    assert "cache_written_again" in capfd.readouterr().err
    assert Model(open_store()).get(PROMPT[:WHOLE]) == WHOLE


def test_cache_folder_blocked_by_a_file_is_logged_once_and_tried_again_later(open_store, tmp_path, capfd):
    (tmp_path / "prompts").write_text("")
    clock = Clock()
    model = Model(open_store(clock=clock))
    model.keep(PROMPT)
    assert (model.get(PROMPT), model.store.persist(60.0)) == (WHOLE, 0)
    assert capfd.readouterr().err.count("cache_not_written") == 1
    (tmp_path / "prompts").unlink()
    clock.now += disk_tier.PAUSE_AFTER_FAILURE_S
    assert model.store.persist(60.0) == 5


def test_cache_folder_deleted_while_running_clears_both_tiers_and_is_created_again(
    open_store, tmp_path, capfd
):
    model = Model(open_store())
    model.keep(PROMPT)
    model.store.persist(60.0)
    (tmp_path / "prompts").rename(tmp_path / "old")
    shutil.rmtree(tmp_path / "old")
    assert model.get(PROMPT) == 0
    assert (model.store.ram_bytes, model.store.disk_bytes) == (0, 0)
    assert "cache_cleared" in capfd.readouterr().err
    assert model.keep(PROMPT) == 5
    assert model.store.persist(60.0) <= 5
    assert len(files(tmp_path)) == 5


def test_two_prompt_caches_on_one_folder_survive_deletions_by_each_other(open_store, tmp_path):
    one, two = Model(open_store()), Model(open_store())
    one.keep(PROMPT)
    two.keep(PROMPT)
    one.store.persist(60.0)
    two.store.persist(60.0)
    for path in files(tmp_path):  # as the limit of one would have it
        path.unlink()
    two.store.free_ram(MANY)
    assert two.get(PROMPT) == 0
    assert two.store.counts.missing == 1
    assert one.get(PROMPT) == WHOLE


def test_cache_match_can_be_restored_although_its_blocks_were_evicted_after_it_was_found(open_store):
    model = Model(open_store(on_disk=0))
    model.keep(PROMPT)
    find = model.store.find(model.keys, PROMPT, TAGS)
    assert find
    model.store.free_ram(MANY)
    gathered = model.store.restore(find)
    assert gathered.value and gathered.value.tokens == WHOLE
    model.store.record_restore(find, gathered)
    assert model.get(PROMPT) == 0


def test_cache_block_is_read_from_disk_once_for_two_requests(open_store, tmp_path):
    folder = RecordingFolder(tmp_path / "prompts")
    model = restarted(open_store, PROMPT, folder=folder)
    store = model.store
    finds = [store.find(model.keys, PROMPT, TAGS) for _ in range(2)]
    for find in finds:
        gathered = store.restore(find)
        assert gathered.value and gathered.value.tokens == WHOLE
    assert folder.reads == model.keys.of_blocks(PROMPT)


def test_cache_find_returns_the_longest_snapshot_that_begins_the_prompt(open_store):
    model = Model(open_store())
    for length in (5, 9, 14):
        model.keep_snapshot(PROMPT[:length])
    model.keep_snapshot([7, 7, 7])
    assert model.get(PROMPT) == 14
    assert model.get(PROMPT[:13]) == 9
    assert model.get([*PROMPT[:8], 99]) == 5
    assert model.get(PROMPT[:4]) == 0
    model.store.persist(60.0)
    assert Model(open_store()).get(PROMPT) == 14


def test_broken_cache_snapshot_is_dropped_and_a_shorter_snapshot_is_used(open_store, tmp_path):
    model = Model(open_store())
    model.keep_snapshot(PROMPT[:5])
    path = tmp_path / "prompts" / (model.keep_snapshot(PROMPT[:9]) + ".safetensors")
    model.store.persist(60.0)
    path.write_bytes(path.read_bytes()[:-1])
    again = Model(open_store())
    assert again.get(PROMPT) == 5
    again.store.persist(60.0)
    assert not path.exists()


def test_cache_blocks_evicted_from_disk_are_not_written_again(open_store):
    store = open_store(on_disk=5 * (BLOCK_BYTES + 1000))
    model = Model(store)
    for first in range(8):
        model.keep([first, *PROMPT])
    store.persist(60.0)
    written = store.usage().written
    for _ in range(3):
        store.retry_unwritten()
    assert store.persist(60.0) == 0
    assert store.usage().written == written


def test_cache_usage_counts_hits_by_tier_and_misses(open_store):
    first = Model(open_store())
    assert first.get(PROMPT) == 0
    first.keep(PROMPT)
    assert first.get(PROMPT) == WHOLE
    use = first.store.usage()
    assert (use.hits_ram, use.hits_disk, use.misses) == (5, 0, 5)
    assert use.ram_bytes == 5 * BLOCK_BYTES
    first.store.persist(60.0)  # some may have been written before
    use = first.store.usage()
    assert (use.written, use.not_written) == (5, 0)
    assert use.written_bytes == use.disk_bytes
    second = Model(open_store())
    assert second.get([*PROMPT[:12], *range(90, 100)]) == 12
    use = second.store.usage()
    assert (use.hits_ram, use.hits_disk, use.misses) == (0, 3, 2)
    assert use.disk_bytes == first.store.usage().disk_bytes
