from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.database import Database, locked
from orchestrator.knowledge import files
from orchestrator.knowledge.chunks import Chunk, chunks_of
from orchestrator.knowledge.store import KnowledgeStore, Known


def test_chunks_carry_the_path_of_their_headings():
    text = "intro\n\n# Guide\n\none\n\n## Install\n\ntwo\n\n# Other\n\nthree\n"
    assert chunks_of(text, markdown=True) == [
        Chunk("", "intro"),
        Chunk("Guide", "one"),
        Chunk("Guide > Install", "two"),
        Chunk("Other", "three"),
    ]


def test_chunks_heading_marks_inside_a_code_fence_are_code():
    text = "# Run\n\n```sh\n# not a heading\nmake up\n```\n"
    assert chunks_of(text, markdown=True) == [Chunk("Run", "```sh\n# not a heading\nmake up\n```")]


def test_chunks_of_plain_text_know_no_headings():
    assert chunks_of("# one\n\ntwo", markdown=False) == [Chunk("", "# one\n\ntwo")]


def test_chunks_of_nothing_are_none():
    assert chunks_of(" \n\n \n", markdown=True) == []


@given(st.text(alphabet="ab .\n#`~é", max_size=400), st.booleans(), st.integers(5, 60))
def test_chunks_lose_no_word_and_keep_their_size(text: str, markdown: bool, most: int):
    chunks = chunks_of(text, markdown, most)
    assert all(0 < len(c.text) <= most for c in chunks)
    if not markdown:
        kept = "".join(re.findall(r"\S", "".join(c.text for c in chunks)))
        assert kept == "".join(re.findall(r"\S", text))


def test_walk_names_what_it_skips_and_follows_no_link(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("b")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.md").write_text("h")
    (tmp_path / "big.md").write_bytes(b"x" * (files.MOST_BYTES + 1))
    os.symlink(tmp_path, tmp_path / "loop")
    os.symlink("/etc/hostname", tmp_path / "out.md")
    found = list(files.walk(tmp_path))
    assert [f.path for f in found if isinstance(f, files.Found)] == ["a.md", "sub/b.txt"]
    assert [f.path for f in found if isinstance(f, files.Skipped)] == ["big.md"]


@pytest.mark.parametrize(("raw", "text"), [(b"\xff ok", "\ufffd ok"), (b"\xef\xbb\xbfbom", "bom")])
def test_read_broken_utf8_is_read_all_the_same(tmp_path: Path, raw: bytes, text: str):
    path = tmp_path / "a.md"
    path.write_bytes(raw)
    found = next(iter(files.walk(tmp_path)))
    assert isinstance(found, files.Found)
    content = files.read(found)
    assert not isinstance(content, files.Skipped)
    assert content[1] == text


def test_read_binary_is_skipped_by_name(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"a\0b")
    found = next(iter(files.walk(tmp_path)))
    assert isinstance(found, files.Found)
    assert files.read(found) == files.Skipped("a.txt", "binary")


def test_folders_are_the_roots_own_and_the_named_ones(tmp_path: Path):
    (tmp_path / "root" / "one").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    named = {"two": tmp_path / "two", "gone": tmp_path / "gone"}
    assert set(files.folders(tmp_path / "root", named)) == {"one", "two"}
    assert files.folders(tmp_path / "none", {}) == {}


@pytest.fixture
def store(tmp_path: Path) -> KnowledgeStore:
    database = Database(tmp_path / "home" / "orchestrator.db")
    database.prepare()
    return KnowledgeStore(database)


def test_store_vector_belongs_to_the_text_not_to_the_file(store: KnowledgeStore):
    chunk = Chunk("H", "same words")
    store.keep_vectors("m", [chunk.embedded_text], [[0.6, 0.8]])
    for name in ("a.md", "b.md"):
        store.replace_file("docs", name, Known("sha", 1, 1, "m"), [chunk])
    assert store.without_vector([chunk.embedded_text, "new", "new"], "m") == ["new"]
    assert store.without_vector([chunk.embedded_text], "another") == [chunk.embedded_text]
    assert len(store.searchable("m")) == 2
    assert store.vector(chunk.embedded_text, "m") == pytest.approx([0.6, 0.8])
    store.forget_files("docs", ["a.md", "b.md"])
    assert store.counts() == {"files": 0, "chunks": 0}
    assert store.drop_unused_vectors(older_than_s=-1) == 1


def test_store_generation_grows_with_every_change(store: KnowledgeStore):
    before = store.generation()
    store.replace_file("docs", "a.md", Known("sha", 1, 1, "m"), [])
    assert store.generation() > before


def test_store_finds_files_that_lack_a_vector(store: KnowledgeStore):
    store.replace_file("docs", "a.md", Known("sha", 1, 1, "m"), [Chunk("", "text")])
    assert store.unsound_files("docs", "m") == ["a.md"]
    assert store.unsound_files("other", "m") == []


def test_database_corrupt_is_moved_aside_and_said_so(tmp_path: Path):
    path = tmp_path / "orchestrator.db"
    path.write_bytes(b"no database" * 1000)
    database = Database(path)
    database.prepare()
    assert "was corrupt" in database.notices[0]
    assert database.meta("anything") is None
    assert len(list(tmp_path.glob("orchestrator.db.corrupt-*"))) == 1


def test_database_sound_is_left_alone(tmp_path: Path):
    database = Database(tmp_path / "orchestrator.db")
    database.prepare()
    database.set_meta("k", "v")
    again = Database(tmp_path / "orchestrator.db")
    again.prepare()
    assert again.meta("k") == "v"
    assert again.notices == []


def test_locked_refuses_a_second_holder(tmp_path: Path):
    with locked(tmp_path / "l") as first, locked(tmp_path / "l", blocking=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path / "l", blocking=False) as third:
        assert third
