"""Fetches of models: which wait for each other, and what is said of a download that is not a model."""

import json
import os
import threading

import pytest

from mlx_server.model_store import ModelStoreError, ensure, find, layout
from mlx_server.model_store.sources import hub
from tests.models.adapter_folders import write_base
from vestal.config import load


@pytest.fixture
def config(tmp_path):
    models = {name: {"source": f"hf:org/{name}"} for name in ("large", "small")}
    (tmp_path / "vestal.yaml").write_text(json.dumps({"models": models}))
    return load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)


def test_two_models_of_the_hub_are_downloaded_at_once(config, tmp_path, monkeypatch):
    """The store's lock was held for each whole download, so a small model waited for a large one."""
    both_download = threading.Barrier(2, timeout=30)

    def fetch(name, source, _step):
        both_download.wait()
        return write_base(tmp_path / "cache" / source.repo)

    monkeypatch.setattr(hub, "fetch", fetch)
    threads = [threading.Thread(target=ensure, args=(config, [name])) for name in ("large", "small")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert find(config, "large") and find(config, "small")
    assert not list(config.models_dir.glob(".staging-*"))


def test_store_that_cannot_be_written_is_refused_before_the_download(config, monkeypatch):
    def fetch(*_):
        raise AssertionError("a download begins")

    monkeypatch.setattr(hub, "fetch", fetch)
    config.models_dir.parent.mkdir(parents=True)
    config.models_dir.write_text("a file is here")
    with pytest.raises(ModelStoreError) as caught:
        ensure(config, ["small"])
    assert caught.value.code == "store_unwritable"


def test_download_that_is_not_a_loadable_model_is_refused_with_the_reason_and_replaces_no_model(
    config, tmp_path, monkeypatch
):
    old = write_base(tmp_path / "old")
    with layout.locked_staging_folder(config.models_dir) as staging:
        (staging / "model").mkdir()
        manifest = {"source": "hf:org/earlier", "path": str(old)}
        layout.move_into_store(staging / "model", config.models_dir, "small:latest", manifest)
    broken = write_base(tmp_path / "broken")
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    monkeypatch.setattr(hub, "fetch", lambda *_: broken)
    with pytest.raises(
        ModelStoreError, match="model small:latest, cannot be served: 1 of 1 files are missing"
    ):
        ensure(config, ["small"])
    entry = find(config, "small")
    assert entry is not None and os.path.samefile(entry.path, old)


def test_folder_of_the_user_that_is_a_broken_model_is_refused_with_the_reason(tmp_path):
    (write_base(tmp_path / "own") / "config.json").write_text("{")
    (tmp_path / "vestal.yaml").write_text(json.dumps({"models": {"own": {"source": "path:own"}}}))
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    with pytest.raises(ModelStoreError, match=r"cannot be served: config\.json: not JSON"):
        ensure(config, ["own"])
