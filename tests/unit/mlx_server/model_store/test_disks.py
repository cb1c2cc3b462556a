"""Making and removing models on disks that have no hard links, are full or cannot be written."""

from __future__ import annotations

import errno
import json
import os
import signal
import tempfile
from pathlib import Path

import pytest

from mlx_server.model_store import ModelStoreError, Preset, __main__, find, layout, make, making
from mlx_server.model_store.blobs import Blobs, Upload
from tests.models.adapter_folders import write_adapter, write_base
from tests.unit.mlx_server.model_store.test_making import config, upload, write_model
from vestal.config import load

__all__ = ["config"]
DIGEST = f"sha256:{'0' * 64}"
FULL = Path("/dev/full")


def uploaded(config, folder):
    blobs = Blobs(config.models_dir)
    return {path.name: upload(blobs, path.read_bytes()) for path in sorted(folder.iterdir())}


def raising(number):
    def call(*_args, **_options):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def no_links(monkeypatch):
    """Refuse hard links, as exFAT does."""
    monkeypatch.setattr(os, "link", raising(errno.ENOTSUP))


def test_model_is_created_from_uploads_on_a_disk_without_hard_links(config, tmp_path, no_links):
    """A model made from another was copied; uploads ended in a traceback."""
    files = uploaded(config, write_model(tmp_path / "upload"))
    making.make_of_files(config, "uploaded", files, Preset())
    assert find(config, "uploaded")


def test_adapter_models_are_created_on_a_disk_without_hard_links(tmp_path, no_links):
    write_base(tmp_path / "base")
    (tmp_path / "vestal.yaml").write_text('{"models": {"base": {"source": "path:base"}}}')
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    for name, parent, files in (
        ("pirate", "base", uploaded(config, write_adapter(tmp_path / "a"))),
        ("captain", "pirate", {}),
    ):
        base = find(config, parent)
        assert base
        make(config, name, base, Preset(parent=parent), files)
        made = find(config, name)
        assert made and made.adapter and made.adapter.path.is_relative_to(config.models_dir)


@pytest.mark.parametrize("place", ["write_manifest", "replace"])
def test_model_creation_on_a_full_disk_is_refused_and_keeps_the_uploads(config, tmp_path, monkeypatch, place):
    files = uploaded(config, write_model(tmp_path / "upload"))
    monkeypatch.setattr(layout, place, raising(errno.ENOSPC))
    base = find(config, "base")
    assert base
    for create in (
        lambda: make(config, "one", base, Preset(system="x")),
        lambda: making.make_of_files(config, "two", files, Preset()),
    ):
        with pytest.raises(ModelStoreError) as caught:
            create()
        assert caught.value.code == "disk_full"
    assert all(Blobs(config.models_dir).has(digest) for digest in files.values())


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux's /dev/full")
def test_upload_that_a_full_disk_cuts_off_at_its_end_is_refused(tmp_path):
    """The last part of an upload is in a buffer until the file is closed."""
    target = Blobs(tmp_path).path(
        f"sha256:{'2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881'}"
    )
    target.parent.mkdir()
    with FULL.open("wb") as file:
        one = Upload(target, target.parent / "none", file, lambda _: 10**12)
        one.write(b"x")
        with pytest.raises(ModelStoreError) as caught:
            one.finish()
        one.close()
    assert caught.value.code == "disk_full"


@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, "store_unwritable"), (errno.ENOSPC, "disk_full")])
def test_upload_that_cannot_begin_raises_the_reason(tmp_path, monkeypatch, number, code):
    monkeypatch.setattr(tempfile, "mkstemp", raising(number))
    monkeypatch.setattr(tempfile, "mkdtemp", raising(number))
    blobs = Blobs(tmp_path)
    with pytest.raises(ModelStoreError) as caught:
        blobs.upload(DIGEST)
    assert caught.value.code == code
    with pytest.raises(ModelStoreError) as caught, blobs.working_folder():
        pass
    assert caught.value.code == code


def test_remove_command_prints_why_a_model_cannot_be_removed_and_removes_the_others(
    config, monkeypatch, capsys
):
    """It ended with a traceback."""
    layout.write_manifest(write_model(config.models_dir / "other__latest"), "other:latest", {})
    real = os.rename

    def rename(source, target, **options):
        if os.path.basename(source) == "base__latest":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("VESTAL_HOME", str(config.home.root))
    assert __main__.main(["--json", "remove", "base:latest", "other:latest"]) == 1
    failed, removed = map(json.loads, capsys.readouterr().out.splitlines())
    assert (failed["model"], failed["error"]["code"]) == ("base:latest", "store_unwritable")
    assert removed == {"model": "other:latest", "removed": True}
