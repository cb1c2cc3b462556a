"""The token's file, and the permissions of the home."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vestal.config import ConfigError, Home, KeptToken, ensure_token, read_token


@pytest.fixture
def prepared(tmp_path: Path) -> Home:
    home = Home(tmp_path / "new", tmp_path / "new" / "logs", tmp_path / ".vestal")
    home.prepare()
    return home


def test_ensure_token_creates_one_token_that_only_its_owner_can_read(prepared: Home):
    token = ensure_token(prepared)
    assert len(token) >= 32
    assert ensure_token(prepared) == read_token(prepared) == token
    assert prepared.token.stat().st_mode & 0o777 == 0o600
    prepared.token.chmod(0o644)
    ensure_token(prepared)
    assert prepared.token.stat().st_mode & 0o777 == 0o600


def test_ensure_token_in_many_threads_at_once_creates_one_token(prepared: Home):
    tokens: set[str] = set()
    threads = [threading.Thread(target=lambda: tokens.add(ensure_token(prepared))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 1
    assert sorted(path.name for path in prepared.root.glob(".token*")) == []


def test_token_file_is_written_again_only_if_it_is_missing_or_changed(prepared: Home):
    assert KeptToken(prepared, "original").keep()
    token = KeptToken(prepared, "original")
    assert not token.keep()
    prepared.token.write_text("changed")
    assert token.keep()
    assert read_token(prepared) == "original"


def test_read_token_without_a_file_says_how_to_create_one(prepared: Home):
    with pytest.raises(ConfigError, match="vestal up"):
        read_token(prepared)


def test_vestal_home_can_be_read_by_its_owner_only(prepared: Home):
    modes = {path.stat().st_mode & 0o777 for path in (prepared.root, prepared.run, prepared.cache)}
    assert modes == {0o700}
