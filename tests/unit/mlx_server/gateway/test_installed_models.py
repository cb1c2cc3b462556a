"""The list of installed models, while models come and go."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from mlx_server.gateway import installed_models
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.model_store import layout, survey
from tests.models.adapter_folders import write_base
from vestal.config import Config, load
from vestal.supervision import FakeClock


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "vestal.yaml").write_text(json.dumps({"models": {"base:1b": {"source": "hf:org/base"}}}))
    return load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)


async def test_model_installed_while_another_request_reads_the_folders_is_found_at_once(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    """The end of that reading once hid the change, so a model was "not found" for a second after its pull."""
    has_read, may_return = threading.Event(), threading.Event()

    def slow_survey(config: Config) -> Any:
        found = survey(config)
        has_read.set()
        assert may_return.wait(30)
        return found

    models = InstalledModels(config, FakeClock())
    monkeypatch.setattr(installed_models, "survey", slow_survey)
    reading = asyncio.create_task(models.all())
    assert await asyncio.to_thread(has_read.wait, 30)
    write_base(config.models_dir / "base__1b")
    models.changed()
    may_return.set()
    assert await reading == []
    assert (await models.get("base:1b")).name == "base:1b"


async def test_list_of_models_is_read_again_after_a_reading_that_failed_or_was_cancelled(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    write_base(config.models_dir / "base__1b")
    models, fails = InstalledModels(config, FakeClock()), threading.Event()

    def failing_survey(_config: Config) -> Any:
        fails.wait(30)
        raise PermissionError("ordered by the test")

    with monkeypatch.context() as patched:
        patched.setattr(installed_models, "survey", failing_survey)
        cancelled = asyncio.create_task(models.all())
        await asyncio.sleep(0)
        cancelled.cancel()
        fails.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        with pytest.raises(PermissionError):
            await models.all()
    assert [entry.name for entry in await models.all()] == ["base:1b"]


async def wait_for_clean_up() -> None:
    for thread in threading.enumerate():
        if thread.name == "model-store-clean-up":
            await asyncio.to_thread(thread.join, 30)


async def test_model_whose_replacement_was_killed_midway_is_found_after_the_clean_up_of_a_new_gateway(
    config: Config,
):
    write_base(config.models_dir / ".changing-dead" / "replaced")
    layout.write_manifest(config.models_dir / ".changing-dead" / "replaced", "base:1b", {})
    models = InstalledModels(config, FakeClock())
    assert await models.all() == []
    models.start_clean_up()
    await wait_for_clean_up()
    assert (await models.get("base:1b")).name == "base:1b"


async def test_clean_up_of_a_store_that_cannot_be_written_ends_without_an_exception(
    config: Config, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
):
    def refuse(store: Path) -> None:
        raise PermissionError(f"{store}: ordered by the test")

    monkeypatch.setattr(layout, "clean_up", refuse)
    InstalledModels(config, FakeClock()).start_clean_up()
    await wait_for_clean_up()
    assert not recwarn.list  # pytest warns of a thread that an exception has ended
