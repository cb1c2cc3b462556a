"""How the command line reports a bug of its own."""

from __future__ import annotations

from pathlib import Path

from host_agent.cli.main import _write_traceback
from vestal.config import load


def test_log_of_a_bug_and_its_new_folders_can_be_read_by_their_owner_only(tmp_path: Path):
    config = load({"HOME": str(tmp_path), "VESTAL_HOME": str(tmp_path / "home")}, tmp_path)
    try:
        raise ValueError("a bug")
    except ValueError:
        clause = _write_traceback(config)
    log = config.home.logs / "vestal.log"
    assert clause == f"{log} has the details"
    assert "ValueError: a bug" in log.read_text()
    modes = [path.stat().st_mode & 0o777 for path in (config.home.root, config.home.logs, log)]
    assert modes == [0o700, 0o700, 0o600]
