"""While the gateway has no free file descriptor, its models are not lost and no answer reports a bug.

With its limit of descriptors lowered to what was open, requests were answered 500 `internal_error`, and a
list of models that was read meanwhile lacked some.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_server.gateway.errors import Unavailable
from mlx_server.gateway.installed_models import MAX_AGE_S, InstalledModels
from mlx_server.model_store import survey
from tests.models.adapter_folders import write_base
from tests.unit.mlx_server.gateway.dialects.ollama.test_ollama_models import Server
from vestal.config import Config, load
from vestal.platform.exhaustion import is_exhausted
from vestal.supervision import FakeClock


@contextlib.contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Let this process open nothing within the context."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {number for number in range(soft) if _is_open(number)} if soft < 100_000 else set()
    free = next(number for number in itertools.count() if number not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "vestal.yaml").write_text(json.dumps({"models": {"base:1b": {"source": "hf:org/base"}}}))
    found = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    write_base(found.models_dir / "base__1b")
    return found


def test_listing_the_models_while_no_file_descriptor_is_free_fails_instead_of_omitting_models(config: Config):
    assert [entry.name for entry in survey(config)[0]] == ["base:1b"]
    with no_descriptor_left(), pytest.raises(OSError) as raised:
        survey(config)
    assert is_exhausted(raised.value)


async def test_installed_model_found_before_is_found_again_while_no_file_descriptor_is_free(config: Config):
    clock = FakeClock()
    models, new = InstalledModels(config, clock), InstalledModels(config, clock)
    await models.get("base:1b")
    clock.advance(MAX_AGE_S + 1)
    with no_descriptor_left():
        assert (await models.get("base:1b")).name == "base:1b"
        with pytest.raises(Unavailable, match="Too many open files"):
            await new.get("base:1b")
    assert (await new.get("base:1b")).name == "base:1b"


async def test_request_without_a_free_file_descriptor_is_503_and_another_system_error_is_500(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    server = Server(tmp_path)
    body = {"model": "base:1b", "prompt": "x", "stream": False}

    async def ask(number: int) -> Any:
        async def get(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(server.models, "get", get)
        return await server.http.post("/api/generate", json=body)

    refused = await ask(errno.EMFILE)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) > 0
    with pytest.raises(OSError, match="error"):
        await ask(errno.EIO)
