from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.knowledge.folders import files
from orchestrator.knowledge.folders.chunks import MAX_TITLE_CHARS, Chunk, chunks_of
from orchestrator.knowledge.store import KnowledgeStore, Known
from orchestrator.knowledge.vectors import VectorCache
from orchestrator.storage.database import Database


def test_chunks_of_markdown_have_the_path_of_their_headings():
    text = "intro\n\n# Guide\n\none\n\n## Install\n\ntwo\n\n# Other\n\nthree\n"
    assert chunks_of(text, markdown=True) == [
        Chunk("", "intro"),
        Chunk("Guide", "one"),
        Chunk("Guide > Install", "two"),
        Chunk("Other", "three"),
    ]


@pytest.mark.parametrize(
    ("line", "title"),
    [("# Title | 2024", "Title | 2024"), ("## Title ##  ", "Title"), ("   # a", "a"), ("#\tC# ", "C")],
)
def test_chunks_of_a_heading_have_its_title(line: str, title: str):
    assert chunks_of(f"{line}\ntext", markdown=True) == [Chunk(title, "text")]


@pytest.mark.parametrize("line", ["#a", "####### a", "    # a", "# ", "# ##", "#    "])
def test_chunks_of_a_line_that_is_no_heading_have_it_as_text(line: str):
    assert chunks_of(f"{line}\ntext", markdown=True) == [Chunk("", f"{line}\ntext")]


@pytest.mark.parametrize(
    "line", ["# a" + " " * 200_000 + "b", "# " + "#" * 200_000 + "b", "# " * 100_000 + "b"]
)
def test_chunks_of_a_long_heading_are_found_in_linear_time(line: str):
    """A heading with 1,600 spaces in it took minutes, and stopped the whole orchestrator meanwhile."""
    began = time.process_time()
    assert chunks_of(f"{line}\ntext", markdown=True)
    assert time.process_time() - began < 5


def test_chunks_below_a_long_heading_repeat_only_its_beginning_and_lose_no_word():
    title = " ".join(f"word{n}" for n in range(1000))
    chunks = chunks_of(f"# {title}\n" + "text\n\n" * 1000, markdown=True)
    assert max(len(chunk.heading) for chunk in chunks) <= MAX_TITLE_CHARS
    assert set(title.split()) <= set(" ".join(chunk.text for chunk in chunks).split())


def test_chunks_of_megabytes_without_an_empty_line_are_cut_in_linear_time():
    began = time.process_time()
    chunks = chunks_of("\U0001f642" + "word word\n" * 400_000, markdown=False)
    assert sum(len(chunk.text.split()) for chunk in chunks) == 800_000
    assert time.process_time() - began < 5


def test_chunks_of_a_code_fence_treat_heading_marks_as_code():
    text = "# Run\n\n```sh\n# not a heading\nmake up\n```\n"
    assert chunks_of(text, markdown=True) == [Chunk("Run", "```sh\n# not a heading\nmake up\n```")]


def test_chunks_of_plain_text_have_no_headings():
    assert chunks_of("# one\n\ntwo", markdown=False) == [Chunk("", "# one\n\ntwo")]


def test_blank_text_has_no_chunks():
    assert chunks_of(" \n\n \n", markdown=True) == []


@given(st.text(alphabet="ab .\n#`~é", max_size=400), st.booleans(), st.integers(5, 60))
def test_chunks_of_any_text_contain_every_word_and_stay_within_the_size_limit(
    text: str, markdown: bool, most: int
):
    chunks = chunks_of(text, markdown, most)
    assert all(0 < len(c.text) <= most for c in chunks)
    if not markdown:
        kept = "".join(re.findall(r"\S", "".join(c.text for c in chunks)))
        assert kept == "".join(re.findall(r"\S", text))


def test_walk_of_a_knowledge_folder_reports_skipped_files_and_follows_no_symlink(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("b")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.md").write_text("h")
    (tmp_path / "big.md").write_bytes(b"x" * (files.MAX_BYTES + 1))
    os.symlink(tmp_path, tmp_path / "loop")
    os.symlink("/etc/hostname", tmp_path / "out.md")
    found = list(files.walk(tmp_path))
    assert [f.path for f in found if isinstance(f, files.KnowledgeFile)] == ["a.md", "sub/b.txt"]
    assert [f.path for f in found if isinstance(f, files.Skipped)] == ["big.md", "loop", "out.md"]


class StaleEntry:
    """A directory entry whose type only the file server knows, and the server has lost the file."""

    def __init__(self, name: str) -> None:
        self.name = self.path = name

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        raise OSError(errno.ESTALE, "Stale file handle")


class Listing(list[Any]):
    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_walk_of_a_folder_with_a_stale_entry_skips_it_for_now_and_yields_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error ended the update of all agents (NFS, and FUSE without entry types)."""
    (tmp_path / "good.md").write_text("good")
    with os.scandir(tmp_path) as listing:
        entries = [*listing, StaleEntry("stale")]
    monkeypatch.setattr(files.os, "scandir", lambda path: Listing(entries))
    good, stale = files.walk(tmp_path)
    assert good.path == "good.md"
    assert stale == files.Skipped("stale", "unreadable (Stale file handle)", temporary=True, folder=True)


@pytest.mark.parametrize(
    ("raw", "text", "broken"),
    [
        (b"\xff ok", "\ufffd ok", 1),
        ("said \ufffd".encode(), "said \ufffd", 0),
        (b"\xef\xbb\xbfbom", "bom", 0),
        ("wide".encode("utf-16"), "wide", 0),
    ],
)
def test_knowledge_file_in_any_encoding_is_read_and_its_invalid_characters_counted(
    tmp_path: Path, raw: bytes, text: str, broken: int
):
    path = tmp_path / "a.md"
    path.write_bytes(raw)
    found = next(iter(files.walk(tmp_path)))
    assert isinstance(found, files.KnowledgeFile)
    content = files.read(found)
    assert isinstance(content, files.Content)
    assert (content.text, content.broken) == (text, broken)


def test_binary_knowledge_file_is_skipped_with_its_name_and_the_reason(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"a" * 10_000 + b"\0")
    found = next(iter(files.walk(tmp_path)))
    assert isinstance(found, files.KnowledgeFile)
    assert files.read(found) == files.Skipped("a.txt", "binary")


def test_knowledge_folders_include_subfolders_of_the_root_and_configured_folders(tmp_path: Path):
    (tmp_path / "root" / "one").mkdir(parents=True)
    (tmp_path / "two").mkdir()
    named = {"two": tmp_path / "two", "away": tmp_path / "away"}
    assert set(files.folders(tmp_path / "root", named).by_agent) == {"one", "two", "away"}
    assert files.folders(tmp_path / "none", {}) == files.Folders({})


def test_knowledge_folder_that_cannot_be_listed_is_reported_as_unreadable(tmp_path: Path):
    (tmp_path / "a file").write_text("no folder")
    found = files.folders(tmp_path / "a file", {"away": tmp_path / "other"})
    assert found.by_agent == {"away": tmp_path / "other"}
    assert found.unreadable == f"{tmp_path / 'a file'}: unreadable folder (Not a directory)"


def test_knowledge_folder_that_links_to_an_unmounted_disk_is_returned(tmp_path: Path):
    os.symlink(tmp_path / "unmounted", tmp_path / "docs")
    assert set(files.folders(tmp_path, {}).by_agent) == {"docs"}


@pytest.fixture
def store(database: Database) -> KnowledgeStore:
    return KnowledgeStore(database)


def test_embedding_vector_of_a_text_is_shared_by_all_files_that_contain_the_text(
    database: Database, store: KnowledgeStore
):
    vectors = VectorCache(database)
    chunk = Chunk("H", "same words")
    vectors.keep("m", [chunk.embedded_text], [[0.6, 0.8]])
    for name in ("a.md", "b.md"):
        store.replace_files("docs", [(name, Known("sha", 1, 1, "m"), [chunk])])
    assert vectors.without_vector([chunk.embedded_text, "new", "new"], "m") == ["new"]
    assert vectors.without_vector([chunk.embedded_text], "another") == [chunk.embedded_text]
    assert vectors.vector(chunk.embedded_text, "m") == pytest.approx([0.6, 0.8])
    assert store.files_lacking_vectors("docs", "m") == []
    assert store.counts_by_agent() == {"docs": {"files": 2, "passages": 2}}
    store.forget_files("docs", ["a.md", "b.md"])
    assert store.counts() == {"files": 0, "chunks": 0}
    assert store.counts_by_agent() == {}
    assert vectors.drop_unused(older_than_s=-1) == 1


def test_drop_unused_deletes_all_unused_vectors_but_the_newest(database: Database, store: KnowledgeStore):
    vectors = VectorCache(database)
    store.replace_files("docs", [("a.md", Known("sha", 1, 1, "m"), [Chunk("", "used")])])
    vectors.keep("m", ["used"], [[1.0]])
    for n in range(10):
        vectors.keep("m", [f"question {n}"], [[1.0]])
    assert vectors.drop_unused(older_than_s=3600, max_unused=4) == 6
    assert vectors.vector("used", "m") is not None
    assert vectors.vector("question 9", "m") is not None
    assert vectors.vector("question 5", "m") is None
    assert vectors.drop_unused(older_than_s=3600, max_unused=4) == 0


def made_long_ago(database: Database) -> None:
    with database.connect() as db:
        db.execute("UPDATE vectors SET made_at = made_at - ?", (400 * 86400.0,))


def test_drop_unused_deletes_the_vectors_of_a_former_model(database: Database, store: KnowledgeStore):
    """Only the text was compared: the vectors of each former model were kept forever."""
    vectors = VectorCache(database)
    for model in ("former", "m"):
        vectors.keep(model, ["text"], [[1.0]])
        store.replace_files("docs", [("a.md", Known("sha", 1, 1, model), [Chunk("", "text")])])
    assert vectors.drop_unused(30 * 86400.0) == 0
    made_long_ago(database)
    assert vectors.drop_unused(30 * 86400.0) == 1
    assert vectors.vector("text", "m") is not None


def test_drop_unused_keeps_an_old_vector_whose_file_was_deleted_or_changed_today(
    database: Database, store: KnowledgeStore
):
    """A folder that was moved away for one night lost all vectors that were older than 30 days."""
    vectors = VectorCache(database)
    known = Known("sha", 1, 1, "m")
    vectors.keep("m", ["deleted", "changed"], [[1.0], [1.0]])
    files = [("a.md", known, [Chunk("", "deleted")]), ("b.md", known, [Chunk("", "changed")])]
    store.replace_files("docs", files)
    made_long_ago(database)
    store.forget_files("docs", ["a.md"])
    store.replace_files("docs", [("b.md", known, [Chunk("", "new")])])
    assert vectors.drop_unused(30 * 86400.0) == 0
    made_long_ago(database)
    assert vectors.drop_unused(30 * 86400.0) == 2


def test_texts_without_vectors_are_returned_in_order_even_if_too_many_for_one_sql_statement(
    database: Database,
):
    texts = [f"text {n}" for n in range(1200)]
    vectors = VectorCache(database)
    vectors.keep("m", texts[700:900], [[1.0]] * 200)
    assert vectors.without_vector(texts, "m") == texts[:700] + texts[900:]


def test_knowledge_store_generation_increases_with_every_change(store: KnowledgeStore):
    before = store.generation()
    store.replace_files("docs", [("a.md", Known("sha", 1, 1, "m"), [])])
    assert store.generation() > before


def test_files_lacking_vectors_returns_the_files_with_a_chunk_without_a_vector(store: KnowledgeStore):
    store.replace_files("docs", [("a.md", Known("sha", 1, 1, "m"), [Chunk("", "text")])])
    assert store.files_lacking_vectors("docs", "m") == ["a.md"]
    assert store.files_lacking_vectors("other", "m") == []
