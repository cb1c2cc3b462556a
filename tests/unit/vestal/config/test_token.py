"""The token's file, and the permissions of the home."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from vestal.config import ConfigError, Home, KeptToken, ensure_token, read_token
from vestal.platform.file_lock import try_lock


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


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_token_is_created_once_on_a_disk_without_hard_links(prepared: Home, monkeypatch, number: int):
    """exFAT and vfat refuse `link`, and every command once ended with "change its owner"."""

    def refuse(*paths: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    test_ensure_token_in_many_threads_at_once_creates_one_token(prepared)
    assert prepared.token.stat().st_mode & 0o777 == 0o600
    assert ensure_token(prepared) == read_token(prepared)


def test_token_is_created_on_a_disk_without_hard_links_while_an_agent_runs(prepared: Home, monkeypatch):
    """A running agent holds the lock on its home, for which the creation waited without end."""

    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    descriptor = try_lock(prepared.root)
    assert descriptor is not None
    try:
        assert ensure_token(prepared) == read_token(prepared)
    finally:
        os.close(descriptor)


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
