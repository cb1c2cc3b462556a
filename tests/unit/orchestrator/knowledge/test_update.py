"""The knowledge update: changed files in batches, bad files skipped, and interrupted updates continued."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.knowledge import embedding
from orchestrator.knowledge.folders.files import Skipped
from orchestrator.knowledge.scan import scan
from orchestrator.knowledge.search.scope import EVERYTHING
from orchestrator.knowledge.store import Known
from orchestrator.knowledge.update import UpdateReport
from orchestrator.storage.database import Database
from orchestrator.storage.sqlite import SqliteDatabase
from tests.unit.orchestrator.conftest import Knowledge

KNOWN = Known("sha", 1, 1, "m")


async def update(knowledge: Knowledge, full: bool = False) -> UpdateReport:
    return await knowledge.updater.update_all_agents_knowledge(knowledge.folders(), full)


async def test_knowledge_update_of_a_changed_file_embeds_the_changed_chunk_only(knowledge: Knowledge):
    knowledge.write("docs", a="# A\n\nalpha\n\n# B\n\nbeta", b="# C\n\ngamma")
    await update(knowledge)
    knowledge.models.batches.clear()
    knowledge.write("docs", a="# A\n\nalpha\n\n# B\n\nbeta, and more")
    report = await update(knowledge)
    assert (report.changed, report.embedded) == (1, 1)
    assert knowledge.models.batches == [["B\nbeta, and more"]]


async def test_knowledge_update_of_small_files_embeds_them_in_shared_batches(knowledge: Knowledge):
    knowledge.write("docs", **{f"f{n}": f"text {n}" for n in range(20)})
    await update(knowledge)
    assert [len(batch) for batch in knowledge.models.batches] == [8, 8, 4]


async def test_knowledge_update_of_two_agents_with_the_same_text_embeds_it_once(knowledge: Knowledge):
    knowledge.write("one", a="shared words")
    knowledge.write("two", b="shared words")
    report = await update(knowledge)
    assert (report.changed, report.embedded) == (2, 1)


async def test_knowledge_update_after_a_backend_death_continues_where_it_stopped(knowledge: Knowledge):
    knowledge.write("docs", **{f"f{n:02}": f"text {n}" for n in range(20)})
    knowledge.models.after = 2
    report = await update(knowledge)
    assert report.stopped == "gone"
    assert report.changed == 16
    knowledge.models.after = 10**9
    report = await update(knowledge)
    assert (report.changed, report.embedded, report.stopped) == (4, 4, "")


async def test_knowledge_update_with_little_free_memory_stops(knowledge: Knowledge):
    knowledge.write("docs", a="text")
    knowledge.memory = 0.95
    assert (await update(knowledge)).stopped == "memory is at 95% of the limit"


async def test_knowledge_update_with_unreadable_files_skips_and_names_them(knowledge: Knowledge):
    folder = knowledge.write("docs", good="good words")
    (folder / "binary.md").write_bytes(b"\x7fELF\0\0")
    (folder / "latin.md").write_bytes("café".encode("latin-1"))
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.md")  # opening it would block
    (folder / os.fsdecode(b"name\xff.md")).write_text("x")
    report = await update(knowledge)
    assert report.changed == 2
    assert report.notes == ["docs/latin.md: not UTF-8 in 1 place(s)"]
    assert {line.partition(": ")[0] for line in report.skipped} == {
        "docs/binary.md",
        "docs/loop",
        "docs/pipe.md",
        "docs/name\ufffd.md",
    }
    assert report.as_json()["skipped_files"] == 4


REFUSED = "docs/bad.md: 1 passage(s) found by their words only: mlx answers 400: no"


async def test_knowledge_update_reports_the_file_of_a_text_that_the_backend_refuses_and_embeds_all_others(
    knowledge: Knowledge,
):
    knowledge.write("docs", **{f"f{n}": f"text {n}" for n in range(20)})
    knowledge.write("docs", bad="# One\n\nfine words\n\n# Two\n\npoison words")
    knowledge.models.refuses = "poison"
    report = await update(knowledge)
    assert (report.stopped, report.changed, report.embedded) == ("", 21, 21)
    assert report.notes == [REFUSED]
    found = await knowledge.search.find("poison", EVERYTHING, 3)
    assert (found.hits[0].file, found.hits[0].heading) == ("bad.md", "Two")


async def test_knowledge_update_retries_a_refused_text_only_when_it_changes_or_in_a_full_update(
    knowledge: Knowledge,
):
    knowledge.write("docs", good="good words", bad="poison words")
    knowledge.models.refuses = "poison"
    await update(knowledge)
    knowledge.models.batches.clear()
    for _ in range(2):
        assert (await update(knowledge)).notes == [REFUSED]  # the record of each cycle contains it
    assert knowledge.models.batches == []
    assert (await update(knowledge, full=True)).notes == [REFUSED]
    assert knowledge.models.batches == [["hello"], ["poison words"], ["hello"]]

    knowledge.write("docs", bad="harmless words")
    report = await update(knowledge)
    assert (report.changed, report.embedded, report.notes) == (1, 1, [])


async def test_knowledge_update_no_longer_reports_a_refused_text_that_was_embedded_later(
    knowledge: Knowledge,
):
    knowledge.write("docs", bad="poison words")
    knowledge.models.refuses = "poison"
    assert (await update(knowledge)).notes
    knowledge.models.refuses = ""
    report = await update(knowledge, full=True)
    assert (report.embedded, report.notes) == (1, [])


async def test_knowledge_update_stops_and_reports_no_file_as_refused_if_the_backend_refuses_every_text(
    knowledge: Knowledge,
):
    knowledge.write("docs", **{f"f{n}": f"text {n}" for n in range(20)})
    knowledge.models.refuses = "e"  # also in the probe text "hello"
    report = await update(knowledge)
    assert report.stopped == "mlx answers 400: no"
    assert (report.changed, report.notes) == (0, [])
    assert len(knowledge.models.batches) == 2


async def test_knowledge_update_with_many_refused_texts_ends_after_a_bounded_number_of_calls(
    knowledge: Knowledge,
):
    knowledge.write("docs", **{f"f{n:04}": f"poison {n}" for n in range(embedding.MAX_REFUSALS)})
    knowledge.write("docs", good="good words")
    knowledge.models.refuses = "poison"
    report = await update(knowledge)
    assert (report.stopped, report.changed) == ("", embedding.MAX_REFUSALS + 1)
    assert len(report.notes) >= embedding.MAX_REFUSALS
    assert len(knowledge.models.batches) < embedding.MAX_REFUSALS * 1.2
    assert len(report.as_json()["notes"]) == 20  # type: ignore[arg-type]


async def test_knowledge_update_of_a_file_dated_centuries_ahead_embeds_it_once(knowledge: Knowledge):
    """A date after 2262 is no 64-bit number of nanoseconds: each update ended there, for all agents."""
    folder = knowledge.write("docs", a="alpha", b="beta")
    os.utime(folder / "a.md", (1.7e10, 1.7e10))
    if (folder / "a.md").stat().st_mtime_ns < 2**63:
        pytest.skip("this disk stores no such date")
    assert (await update(knowledge)).changed == 2
    assert (await update(knowledge)).changed == 0


async def test_knowledge_update_logs_a_skipped_file_once(
    knowledge: Knowledge, capsys: pytest.CaptureFixture[str]
):
    folder = knowledge.write("docs", good="good words")
    (folder / "binary.md").write_bytes(b"\0")
    for _ in range(3):
        report = await update(knowledge)
    assert report.skipped == ["docs/binary.md: binary"]
    assert capsys.readouterr().out.count("knowledge_file_skipped") == 1


async def test_knowledge_update_of_a_file_that_became_binary_removes_its_chunks(knowledge: Knowledge):
    folder = knowledge.write("docs", a="once text")
    await update(knowledge)
    (folder / "a.md").write_bytes(b"\0\1\2")
    report = await update(knowledge)
    assert (report.deleted, report.changed) == (1, 0)
    assert (await knowledge.search.find("text", EVERYTHING, 5)).hits == []


async def test_knowledge_update_of_a_restored_file_reuses_its_vectors(knowledge: Knowledge):
    folder = knowledge.write("docs", a="alpha", b="beta")
    other = knowledge.write("other", c="gamma")
    await update(knowledge)
    (folder / "a.md").unlink()
    (other / "c.md").unlink()
    other.rmdir()
    assert (await update(knowledge)).deleted == 2
    assert knowledge.store.counts() == {"files": 1, "chunks": 1}
    knowledge.write("docs", a="alpha")
    report = await update(knowledge)
    assert (report.changed, report.embedded) == (1, 0)


async def test_knowledge_update_on_a_shared_database_keeps_the_files_indexed_by_another_process(
    tmp_path: Path, database: Database
):
    """Two processes with different folders on one database once deleted each other's files."""
    here, there = (Knowledge(tmp_path / name, database, shared=True) for name in ("here", "there"))
    here.write("docs", a="alpha")
    other = there.write("other", b="beta")
    await update(here)
    await update(there)
    assert (await update(here)).deleted == 0
    assert here.store.counts()["files"] == 2
    (other / "b.md").unlink()  # a file deleted from a folder is removed
    assert (await update(there)).deleted == 1
    assert here.store.counts()["files"] == 1


async def test_full_knowledge_update_finds_a_change_with_an_unchanged_time_stamp(knowledge: Knowledge):
    folder = knowledge.write("docs", a="old words")
    await update(knowledge)
    stat = (folder / "a.md").stat()
    knowledge.write("docs", a="new words")
    os.utime(folder / "a.md", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (await update(knowledge)).changed == 0
    assert (await update(knowledge, full=True)).changed == 1


async def test_full_knowledge_update_embeds_a_chunk_without_a_vector(knowledge: Knowledge):
    knowledge.write("docs", a="alpha", b="beta")
    await update(knowledge)
    with knowledge.database.connect() as db:
        db.execute("DELETE FROM vectors WHERE text_sha = (SELECT min(text_sha) FROM vectors)")
    report = await update(knowledge, full=True)
    assert (report.changed, report.embedded) == (1, 1)


def refuse_files(database: Database) -> None:
    """Make the database refuse new files, as it does on a full disk."""
    with database.connect() as db:
        if isinstance(database, SqliteDatabase):
            raising = "SELECT RAISE(ABORT, 'disk is full')"
            db.execute(f"CREATE TRIGGER full_disk BEFORE INSERT ON files BEGIN {raising}; END")
            return
        db.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'disk is full'; END $$"
        )
        db.execute("CREATE TRIGGER full_disk BEFORE INSERT ON files FOR EACH ROW EXECUTE FUNCTION refuse()")


async def test_knowledge_update_with_a_full_disk_stops_with_the_reason_and_loses_nothing(
    knowledge: Knowledge,
):
    knowledge.write("docs", a="alpha")
    await update(knowledge)
    refuse_files(knowledge.database)
    knowledge.write("docs", b="beta")
    report = await update(knowledge)
    assert "disk is full" in report.stopped
    assert [hit.file for hit in (await knowledge.search.find("alpha", EVERYTHING, 1)).hits] == ["a.md"]


async def test_knowledge_update_of_a_missing_configured_folder_names_it_and_keeps_its_chunks(
    knowledge: Knowledge,
):
    folder = knowledge.write("docs", a="alpha")
    await update(knowledge)
    folder.rename(folder.with_name("elsewhere"))
    report = await knowledge.updater.update_all_agents_knowledge({"docs": folder})
    assert report.skipped == ["docs/: unreadable folder (No such file or directory)"]
    assert [hit.file for hit in (await knowledge.search.find("alpha", EVERYTHING, 1)).hits] == ["a.md"]


async def test_knowledge_update_with_an_unreadable_root_names_it_and_keeps_the_chunks_of_all_agents(
    knowledge: Knowledge,
):
    """The knowledge folder could not be listed for a moment, and the nightly run deleted all knowledge."""
    knowledge.write("docs", a="alpha")
    other = knowledge.write("other", b="beta")
    await update(knowledge)
    report = await knowledge.updater.update_all_agents_knowledge(
        {"other": other}, full=True, unreadable="/knowledge: unreadable folder (Input/output error)"
    )
    assert (report.deleted, report.stopped) == (0, "")
    assert report.skipped == ["/knowledge: unreadable folder (Input/output error)"]
    assert knowledge.store.agents() == {"docs", "other"}


def test_knowledge_scan_of_an_unreadable_folder_reports_no_deleted_file(knowledge: Knowledge, tmp_path: Path):
    folder = knowledge.write("docs", a="alpha")
    result = scan(tmp_path / "gone", {"a.md": KNOWN, "sub/b.md": KNOWN}, "m", full=False)
    assert result.gone == []
    assert result.skipped[0].why == "unreadable folder (No such file or directory)"
    assert scan(folder, {}, "m", full=False).changed[0].path == "a.md"


@pytest.mark.parametrize(("path", "covered"), [("sub/a.md", True), ("sub", True), ("subway/a.md", False)])
def test_skip_of_a_folder_applies_to_the_folder_and_paths_below_it_but_not_to_a_similar_name(
    path: str, covered: bool
):
    assert Skipped("sub", "unreadable", temporary=True, folder=True).covers(path) is covered
