from __future__ import annotations

from pathlib import Path

import pytest

from vestal.supervision import JsonStateStore


def test_json_state_store_saves_records_for_the_next_instance(tmp_path: Path):
    JsonStateStore(tmp_path / "run" / "state.json").save("a", {"stopped_by_hand": True})
    assert JsonStateStore(tmp_path / "run" / "state.json").load("a") == {"stopped_by_hand": True}
    assert JsonStateStore(tmp_path / "run" / "state.json").load("b") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_json_state_store_renames_a_corrupt_file_and_starts_empty(tmp_path: Path, text: str):
    path = tmp_path / "state.json"
    path.write_text(text)
    store = JsonStateStore(path)
    assert store.load("a") is None
    assert (tmp_path / "state.json.corrupt").read_text() == text
    store.save("a", {"x": 1})
    assert JsonStateStore(path).load("a") == {"x": 1}


def test_json_state_store_that_cannot_write_keeps_the_record_and_writes_it_later(tmp_path: Path):
    """A folder in place of the file cannot be written, even by root."""
    path = tmp_path / "state.json"
    store = JsonStateStore(path)
    path.mkdir()
    (path / "x").touch()
    assert store.save("a", {"open": True}) is not None
    assert store.load("a") == {"open": True}
    store.keep()
    (path / "x").unlink()
    path.rmdir()
    store.keep()
    assert JsonStateStore(path).load("a") == {"open": True}


def test_json_state_store_writes_a_deleted_file_again_with_its_records_at_the_next_check(tmp_path: Path):
    path = tmp_path / "state.json"
    store = JsonStateStore(path)
    store.save("a", {"open": True})
    path.unlink()
    store.keep()
    assert JsonStateStore(path).load("a") == {"open": True}
