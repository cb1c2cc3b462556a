from __future__ import annotations

from pathlib import Path

from vestal.platform import log_rotation


def test_log_that_is_too_large_is_truncated_while_its_writer_continues(tmp_path: Path):
    log = tmp_path / "one.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert log_rotation.rotate(tmp_path, max_bytes=50) == [log]
        writer.write(b"more")
    assert log.read_bytes() == b"more"
    assert (tmp_path / "one.log.1").read_bytes() == b"x" * 100
    assert log_rotation.rotate(tmp_path, max_bytes=50) == []
