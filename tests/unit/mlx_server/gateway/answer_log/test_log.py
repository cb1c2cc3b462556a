"""The answer log: what the next gateway finds, how long it is kept, and what its limits are."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mlx_server.gateway.answer_log import (
    Accepted,
    Ended,
    Event,
    Left,
    LogInUse,
    NoLog,
    Silence,
    TakenUp,
    pack_record,
)
from mlx_server.gateway.answer_log.earlier_files import START_GRACE_S
from mlx_server.gateway.answer_log.file_names import FileName
from mlx_server.gateway.answer_log.index import MAX_EXPIRED_IDS, UNFINISHED_KEEP_S
from mlx_server.protocol import Token
from tests.disks.answer_log_fixtures import Logs, accepted, token

DAY_S = 24 * 3600.0


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path / "state" / "answers")


def only_file(logs: Logs) -> Path:
    (path,) = [path for path in logs.path.iterdir() if FileName.parse(path.name)]
    return path


def set_clock(logs: Logs, seconds: float) -> None:
    """Set the wall clock forward or back, as people and NTP do: no time passes."""
    logs.clock._wall_offset += seconds


async def test_answer_log_opened_by_the_next_gateway_has_all_appended_records(logs: Logs):
    log = await logs.open()
    for answer_id in ("b", "a", "c"):
        log.begin(accepted(answer_id, key=f"key-{answer_id}"))
    for record in (token(0, answer=1), Silence(1), token(1, "half a pair: \ud83d"), Left(), TakenUp()):
        log.append("a", record)
    log.ended("c")
    await log.close()

    log = await logs.open()
    assert log.unfinished() == ["b", "a"]
    assert [log.status(answer_id) for answer_id in "abcd"] == ["open", "open", "ended", None]
    assert log.id_of_key("key-a") == "a" and log.id_of_key("key-c") == "c" and log.id_of_key("other") is None
    assert await log.records("a") == [
        *(accepted("a", key="key-a"), token(0, answer=1), Silence(1)),
        *(token(1, "half a pair: \ud83d"), Left(), TakenUp()),
    ]
    assert await log.records("c") == [accepted("c", key="key-c"), Ended()]
    assert await log.records("d") is None
    assert logs.events == []
    await log.close()


async def test_answer_of_an_earlier_gateway_is_continued_in_the_same_file(logs: Logs):
    for index in range(3):
        log = await logs.open()
        if index == 0:
            log.begin(accepted("a"))
        log.append("a", token(index))
        await log.close()
    log = await logs.open()
    log.ended("a")
    assert await log.records("a") == [accepted("a"), token(0), token(1), token(2), Ended()]
    log.begin(accepted("b"))
    await log.close()
    log = await logs.open()
    assert (log.unfinished(), log.status("a")) == (["b"], "ended")
    await log.close()


async def test_answer_log_files_are_readable_by_their_owner_only_even_in_an_open_folder(logs: Logs):
    logs.path.mkdir(parents=True, mode=0o755)
    log = await logs.open()
    log.begin(accepted("a"))
    await log.flush()
    assert stat.S_IMODE(logs.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(only_file(logs).stat().st_mode) == 0o600
    await log.close()


async def test_answer_log_ignores_records_after_the_end_of_an_answer(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    log.ended("a")
    log.append("a", token(0))
    log.ended("a")
    log.append("never accepted", token(0))
    assert await log.records("a") == [accepted("a"), Ended()]
    await log.close()


async def test_answer_deleted_from_the_log_leaves_no_file_and_no_status(logs: Logs):
    log = await logs.open()
    for answer_id in ("a", "b"):
        log.begin(accepted(answer_id, key=answer_id))
    log.ended("b")
    await log.flush()
    log.append("a", token(0))
    for answer_id in ("a", "b"):
        log.forget(answer_id)
        log.forget(answer_id)
        assert (log.status(answer_id), log.id_of_key(answer_id)) == (None, None)
        assert await log.records(answer_id) is None
    await log.flush()
    assert logs.files() == {}
    log.begin(accepted("a"))  # the id is free again
    assert await log.records("a") == [accepted("a")]
    await log.close()


async def test_answer_log_skips_and_reports_a_request_record_that_was_only_partly_written(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    await log.close()
    os.truncate(only_file(logs), len(pack_record(accepted("a"))) - 1)
    log = await logs.open()
    assert (log.unfinished(), log.status("a"), logs.files()) == ([], None, {})
    assert [(name, fields["id"]) for name, _, fields in logs.events] == [("answer_log_entry_skipped", "a")]
    await log.close()


async def test_truncated_last_record_is_dropped_and_the_answer_continues_after_the_record_before_it(
    logs: Logs,
):
    log = await logs.open()
    log.begin(accepted("a"))
    log.append("a", token(0))
    log.append("a", token(1, "a text that is longer than the one that follows in its place"))
    await log.close()
    os.truncate(only_file(logs), only_file(logs).stat().st_size - 1)
    log = await logs.open()
    assert await log.records("a") == [accepted("a"), token(0)]
    assert [name for name, _, _ in logs.events] == ["answer_log_tail_dropped"]
    log.append("a", token(1, "x"))
    await log.close()
    log = await logs.open()
    assert await log.records("a") == [accepted("a"), token(0), token(1, "x")]
    assert len(logs.events) == 1  # nothing is left of the torn record
    await log.close()


async def test_answer_whose_end_was_written_just_before_its_gateway_was_killed_counts_as_ended(logs: Logs):
    """The kill came between the last record and the change of the file's name."""
    log = await logs.open()
    log.begin(accepted("a"))
    log.append("a", Ended())
    await log.close()
    log = await logs.open()
    assert (log.status("a"), log.unfinished()) == ("ended", [])
    assert await log.records("a") == [accepted("a"), Ended()]
    await log.close()


async def test_ended_answer_with_a_damaged_file_is_dropped_when_its_records_are_read(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    log.append("a", token(0))
    log.ended("a")
    await log.flush()
    path = only_file(logs)
    content = bytearray(path.read_bytes())
    content[-80] ^= 1
    path.write_bytes(content)
    assert await log.records("a") is None
    assert (log.status("a"), await log.records("a")) == ("expired", None)
    assert [name for name, _, _ in logs.events] == ["answer_log_entry_skipped"]
    await log.flush()
    assert logs.files() == {}
    await log.close()


@pytest.mark.parametrize(
    "wrong_id", ["../../etc/passwd", "a/b", "a.b", "..", "", "a\0", "é", "x" * 81, "a\n", "a\ud800"]
)
async def test_answer_with_an_id_that_is_no_valid_file_name_is_not_stored_in_any_file(
    logs: Logs, wrong_id: str
):
    log = await logs.open()
    log.begin(accepted(wrong_id))
    log.append(wrong_id, token(0))
    log.ended(wrong_id)
    assert (log.status(wrong_id), await log.records(wrong_id)) == (None, None)
    log.forget(wrong_id)
    log.begin(accepted("a", key=wrong_id or "/"))
    assert log.status("a") is None
    await log.flush()
    assert logs.files() == {} and len(logs.named("answer_log_entry_skipped")) == 2
    assert sorted(path.name for path in logs.path.parent.iterdir()) == ["answers", "answers.lock"]
    await log.close()


async def test_answer_log_does_not_store_a_second_request_with_an_id_in_use(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    log.begin(accepted("a", body=b"another"))
    assert await log.records("a") == [accepted("a")]
    assert len(logs.named("answer_log_entry_skipped")) == 1
    await log.close()


async def test_answer_with_a_record_that_cannot_be_packed_is_dropped_from_the_log(logs: Logs):
    """Without that record, the file would have a gap before its end."""
    log = await logs.open()
    log.begin(accepted("bad", query="\ud800"))
    log.begin(accepted("a"))
    log.append("a", Event(0, Token(id="r", token=1, text="x", index=0, thinking=object())))  # type: ignore[arg-type]
    assert (log.status("bad"), log.status("a"), log.unfinished()) == (None, "expired", [])
    assert len(logs.named("answer_log_entry_skipped")) == 2
    await log.close()


async def test_answer_log_refuses_a_second_gateway_until_the_first_has_closed_it(logs: Logs):
    first = await logs.open()
    for keep_s in (3600.0, 0.0):
        with pytest.raises(LogInUse, match="another gateway"):
            await logs.open(keep_s=keep_s)
    await first.close()
    await (await logs.open()).close()


async def test_answer_log_that_is_switched_off_stores_nothing_and_deletes_stored_answers(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    log.begin(accepted("b"))
    log.ended("b")
    await log.close()
    off = await logs.open(keep_s=0.0)
    assert isinstance(off, NoLog) and logs.files() == {}
    off.begin(accepted("c", key="key"))
    off.append("c", token(0))
    assert (off.status("c"), off.id_of_key("key"), await off.records("c"), off.unfinished()) == (
        *(None, None, None),
        [],
    )
    off.ended("c")
    off.forget("c")
    off.sweep()
    await off.flush()
    await off.close()
    assert logs.files() == {}


async def test_answer_log_that_is_switched_off_creates_no_folder(logs: Logs):
    await (await logs.open(keep_s=0.0)).close()
    assert not logs.path.parent.exists()


# --- how long answers are kept ---


async def test_ended_answer_expires_after_keep_s_while_its_id_stays_known_as_expired(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a", key="key"))
    logs.clock.advance(7200)
    log.sweep()
    log.ended("a")
    logs.clock.advance(3599)
    log.sweep()
    assert log.status("a") == "ended"
    logs.clock.advance(1)
    log.sweep()
    assert (log.status("a"), log.id_of_key("key"), await log.records("a")) == ("expired", None, None)
    await log.flush()
    assert logs.files() == {}
    await log.close()
    log = await logs.open()
    assert log.status("a") == "expired"
    await log.close()


async def test_answer_whose_client_left_expires_sooner_than_one_whose_client_stayed_or_came_back(logs: Logs):
    log = await logs.open()
    for answer_id in ("left", "back", "stayed"):
        log.begin(accepted(answer_id))
    for answer_id in ("left", "back"):
        log.append(answer_id, Left())
    log.append("back", TakenUp())
    logs.clock.advance(3600)
    log.sweep()
    assert log.unfinished() == ["back", "stayed"]
    logs.clock.advance(UNFINISHED_KEEP_S)
    log.sweep()
    assert log.unfinished() == []
    await log.close()


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S, 50 * 365 * DAY_S, -30 * 365 * DAY_S])
async def test_answer_log_deletes_no_answer_when_the_clock_is_set_while_the_gateway_runs(
    logs: Logs, jump_s: float
):
    log = await logs.open()
    log.begin(accepted("a"))
    log.ended("a")
    log.begin(accepted("b"))
    for _ in range(2):
        set_clock(logs, jump_s)
        log.sweep()
        jump_s = -jump_s
    assert (log.status("a"), log.status("b")) == ("ended", "open")
    logs.clock.advance(3600)
    log.sweep()
    assert (log.status("a"), log.status("b")) == ("expired", "open")
    await log.close()


@pytest.mark.parametrize(
    ("written_ago_s", "expires_after_s"),
    [
        pytest.param(1000.0, 2600.0, id="as old as it says"),
        pytest.param(-5 * DAY_S, 3600.0, id="from the future: counts as new"),
        pytest.param(10 * DAY_S, START_GRACE_S, id="too old, or a clock far ahead: kept for a while"),
    ],
)
async def test_answer_of_an_earlier_gateway_expires_by_the_time_its_file_was_written(
    logs: Logs, written_ago_s: float, expires_after_s: float
):
    log = await logs.open()
    for answer_id in ("ended", "left", "open"):
        log.begin(accepted(answer_id))
    log.append("left", Left())
    log.ended("ended")
    await log.close()
    written = logs.clock.wall() - written_ago_s
    for path in logs.path.iterdir():
        os.utime(path, (written, written))
    log = await logs.open()
    logs.clock.advance(expires_after_s - 1)
    log.sweep()
    assert [log.status(answer_id) for answer_id in ("ended", "left", "open")] == ["ended", "open", "open"]
    logs.clock.advance(1)
    log.sweep()
    assert [log.status(each) for each in ("ended", "left", "open")] == ["expired", "expired", "open"]
    await log.close()


async def test_unfinished_answer_is_kept_by_the_next_gateway_even_if_the_clock_was_set(logs: Logs):
    log = await logs.open(keep_s=2 * DAY_S)
    log.begin(accepted("a"))
    await log.close()
    set_clock(logs, 50 * 365 * DAY_S)
    log = await logs.open(keep_s=2 * DAY_S)
    logs.clock.advance(2 * DAY_S - 1)
    log.sweep()
    assert log.unfinished() == ["a"]
    await log.close()


async def test_answer_log_remembers_a_bounded_number_of_expired_ids(logs: Logs):
    log = await logs.open(max_answers=1)
    for number in range(MAX_EXPIRED_IDS + 3):
        log.begin(accepted(f"a{number}"))
        log.ended(f"a{number}")
    assert [log.status(f"a{number}") for number in (0, 1, 2, MAX_EXPIRED_IDS + 1)] == [
        *(None, None, "expired", "expired")
    ]
    await log.close()


# --- the limits ---


async def test_answer_log_over_its_limit_drops_answers_in_the_order_ended_then_client_left_then_newest(
    logs: Logs,
):
    log = await logs.open(max_answers=5)
    for answer_id in ("run1", "run2", "left", "end1", "end2"):
        log.begin(accepted(answer_id))
    for answer_id in ("end2", "end1"):
        log.ended(answer_id)
        logs.clock.advance(1)
    log.append("left", Left())
    gone = []
    for new in ("new1", "new2", "new3", "new4"):
        log.begin(accepted(new))
        candidates = ("end2", "end1", "left", "run1", "run2", "new1", "new2", "new3", "new4")
        gone += [each for each in candidates if log.status(each) == "expired" and each not in gone]
    assert gone == ["end2", "end1", "left", "new4"]
    await log.flush()
    assert set(logs.files()) == {"run1", "run2", "new1", "new2", "new3"}
    await log.close()


async def test_answer_log_files_stay_within_the_limit_of_bytes(logs: Logs):
    log = await logs.open(max_bytes=10_000)
    for number in range(10):
        log.begin(accepted(f"a{number}", body=b"x" * 2000))
        log.ended(f"a{number}")
    assert [log.status(f"a{number}") for number in (5, 6, 9)] == ["expired", "ended", "ended"]
    log.begin(accepted("large", body=b"x" * 10_000))
    assert log.status("large") == "expired" and log.unfinished() == []
    log.begin(accepted("grows"))
    for index in range(200):
        log.append("grows", token(index))
    assert log.status("grows") == "expired"
    await log.flush()
    assert sum(path.stat().st_size for path in logs.path.iterdir()) <= 10_000
    await log.close()


async def test_answer_log_limits_that_were_lowered_apply_from_the_next_start(logs: Logs):
    log = await logs.open()
    for number in range(5):
        log.begin(accepted(f"a{number}"))
        log.ended(f"a{number}")
        await log.flush()
        written = logs.clock.wall() - 100 - number
        (path,) = logs.path.glob(f"*.a{number}.*")
        os.utime(path, (written, written))
    await log.close()
    log = await logs.open(max_answers=2)
    await log.flush()
    assert set(logs.files()) == {"a0", "a1"}  # whose files are the youngest
    await log.close()


# --- files of other versions, and other files ---


async def test_answer_log_keeps_files_of_newer_formats_and_deletes_those_of_older_formats_and_reports_both(
    logs: Logs,
):
    logs.path.mkdir(parents=True)
    newer = [f"{number:012}.n{number}..v3.{state}" for number, state in ((7, "open"), (8, "ended"))]
    older = ["000000000003.o..v0.open", "000000000004.p..v0.ended"]
    foreign = ["notes.txt", "12.a..v1.open", "000000000009.a..v1.open.bak", ".hidden"]
    for name in (*newer, *older, *foreign):
        (logs.path / name).write_bytes(pack_record(accepted("o")))
    (logs.path / "000000000002.link..v1.open").symlink_to(logs.path / "notes.txt")
    log = await logs.open(keep_s=3600.0)
    assert log.unfinished() == [] and log.status("n8") is None and log.status("link") is None
    log.begin(accepted("next"))
    await log.close()
    names = {path.name for path in logs.path.iterdir()}
    assert {*newer, *foreign} <= names and not set(older) & names
    assert "000000000009.next..v1.open" in names  # after the newer ones, which have 7 and 8
    assert [(event, fields["files"]) for event, _, fields in logs.events] == [
        ("answer_log_entry_skipped", 2),
        ("answer_log_entry_skipped", 2),
    ]
    await logs.open(keep_s=0.0)
    assert {*newer, *foreign} <= {path.name for path in logs.path.iterdir()}


async def test_answer_log_reads_and_continues_answers_of_the_previous_format(logs: Logs):
    """Format 1 has no field `referenced`; an upgrade must lose none of its answers."""
    logs.path.mkdir(parents=True)
    head = pack_record(accepted("a", format=1))
    assert b"referenced" not in head
    (logs.path / "000000000001.a..v1.ended").write_bytes(head + pack_record(token(0)) + pack_record(Ended()))
    (logs.path / "000000000002.b..v1.open").write_bytes(pack_record(accepted("b", format=1)))
    log = await logs.open()
    assert await log.records("a") == [accepted("a", format=1), token(0), Ended()]
    assert log.unfinished() == ["b"] and not logs.events
    log.append("b", token(0))
    log.ended("b")
    await log.close()
    assert logs.files() == {"a": "ended", "b": "ended"}


async def test_answer_file_whose_content_belongs_to_another_request_is_skipped_and_reported(logs: Logs):
    logs.path.mkdir(parents=True)
    (logs.path / "000000000001.a..v1.open").write_bytes(pack_record(accepted("b")))
    (logs.path / "000000000002.c..v1.open").write_bytes(pack_record(token(0)))
    log = await logs.open()
    assert log.unfinished() == [] and len(logs.named("answer_log_entry_skipped")) == 2
    await log.close()


async def test_answer_log_folder_that_was_deleted_is_created_again_for_the_next_answer(logs: Logs):
    log = await logs.open()
    log.begin(accepted("a"))
    await log.flush()
    only_file(logs).unlink()
    logs.path.rmdir()
    log.append("a", token(0))
    log.begin(accepted("b"))
    await log.flush()
    assert await log.records("a") is None and logs.files() == {"b": "open"}
    assert await log.records("b") == [accepted("b")]
    with pytest.raises(LogInUse):
        await logs.open()
    await log.close()


def test_accepted_record_of_the_answer_log_has_exactly_the_fields_that_a_replay_needs():
    assert Accepted.__struct_fields__ == (
        *("format", "id", "created_s", "method", "path", "query", "headers", "body", "seed", "key_digest"),
        *("body_digest", "version", "referenced"),
    )
