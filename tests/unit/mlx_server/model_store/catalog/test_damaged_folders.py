"""One damaged or unreadable folder is left out of the catalog or listed as broken; all others are listed."""

from __future__ import annotations

import errno
import io
import json
import os
import struct

import pytest

from mlx_server.model_store import ModelStoreError, catalog, ensure, layout, survey
from tests.unit.mlx_server.model_store.catalog.test_catalog import config_of, write_model

__all__ = ["config_of"]


def names(config):
    return [entry.name for entry in catalog(config)]


def reasons(config):
    return {each.name: each.reason for each in survey(config)[1]}


@pytest.fixture
def deny(monkeypatch):
    """Return a function that makes a folder unreadable, also for root, for whom permissions do not count."""

    def make(folder, number=errno.EACCES):
        def refusing(real):
            def call(path=".", *args, **options):
                inside = not isinstance(path, int) and str(path).startswith(f"{folder}/")
                if inside or (str(path) == str(folder) and real in listings):
                    raise OSError(number, os.strerror(number), str(path))
                return real(path, *args, **options)

            return call

        listings = (os.listdir, os.scandir)
        for module, name in ((os, "stat"), (os, "listdir"), (os, "scandir"), (io, "open")):
            monkeypatch.setattr(module, name, refusing(getattr(module, name)))

    return make


def test_catalog_with_an_unreadable_folder_beside_the_models_lists_the_models(config_of, tmp_path, deny):
    """`lost+found` of an ext4 disk once emptied the whole list, and kept the engine from starting."""
    write_model(tmp_path / "own" / "fine")
    (tmp_path / "own" / "lost+found").mkdir()
    deny(tmp_path / "own" / "lost+found")
    assert names(config_of()) == ["fine:latest"]
    assert reasons(config_of()) == {}


def test_catalog_lists_a_configured_model_in_an_unreadable_folder_as_broken(config_of, tmp_path, deny):
    write_model(tmp_path / "own" / "fine")
    closed = write_model(tmp_path / "closed")
    config = config_of({"closed": {"source": "path:closed"}})
    deny(closed)
    assert names(config) == ["fine:latest"]
    assert reasons(config) == {"closed:latest": f"{closed}: it cannot be read (Permission denied)"}
    with pytest.raises(ModelStoreError, match=r"closed, the source of model closed:latest, cannot be read"):
        ensure(config, ["closed"])


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-has-this-name/model"])
def test_catalog_with_a_configured_path_that_cannot_exist_lists_the_models(config_of, tmp_path, path):
    write_model(tmp_path / "own" / "fine")
    config = config_of({"odd": {"source": f"path:{path}"}})
    assert names(config) == ["fine:latest"]
    with pytest.raises(ModelStoreError, match="the source of model odd:latest"):
        ensure(config, ["odd"])


def test_catalog_without_free_descriptors_raises_and_drops_no_model(config_of, tmp_path, deny):
    write_model(tmp_path / "own" / "fine")
    config = config_of()
    assert names(config) == ["fine:latest"]
    deny(tmp_path / "own" / "fine", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        catalog(config)


def test_catalog_without_free_descriptors_raises_and_drops_no_stored_model(config_of, deny):
    config = config_of()
    folder = write_model(layout.installed_path(config.models_dir, "m"))
    layout.write_manifest(folder, "m", {})
    assert names(config) == ["m:latest"]
    deny(folder, errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        layout.read_manifest(folder)


def raw_header(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(2000)


HUGE = "1" + "0" * 400
QUANTIZED = '{"model_type": "llama", "quantization": {"bits": 4, "group_size": 1e999}}'
INDEX = '{"weight_map": {"w.weight": "model.safetensors"}, "metadata": {"total_size": 1e999}}'
BROKEN = {
    "deep tokenizer configuration": ("tokenizer_config.json", b"[" * 100_000, ""),
    "infinite offset": (
        "model.safetensors",
        raw_header('{"w": {"dtype": "F16", "shape": [10, 100], "data_offsets": [0, 1e999]}}'),
        "tensor w has the offsets [0, inf]",
    ),
    "negative offset": (
        "model.safetensors",
        raw_header(f'{{"w": {{"dtype": "X9", "shape": [9], "data_offsets": [-{HUGE}, 2000]}}}}'),
        "tensor w has the offsets",
    ),
    "huge shape of an unknown type": (
        "model.safetensors",
        raw_header(f'{{"w": {{"dtype": "X9", "shape": [{HUGE}], "data_offsets": [0, 2000]}}}}'),
        "tensor w has 2000 bytes for X9",
    ),
    "infinite group size": ("config.json", QUANTIZED.encode(), "OverflowError"),
    "infinite total size": ("model.safetensors.index.json", INDEX.encode(), "its total_size says inf"),
    "files that are no names": ("model.safetensors.index.json", b'{"weight_map": {"w": []}}', "missing"),
}
"""The file that is damaged, its content, and a part of the reason; "" if the model is not broken by it."""


@pytest.mark.parametrize(("file", "content", "reason"), BROKEN.values(), ids=BROKEN)
def test_catalog_with_a_model_of_odd_values_lists_the_others(config_of, tmp_path, file, content, reason):
    """An error that the reader did not expect once ended the list of all models."""
    write_model(tmp_path / "own" / "fine")
    (write_model(tmp_path / "own" / "odd") / file).write_bytes(content)
    config = config_of()
    assert names(config) == (["fine:latest"] if reason else ["fine:latest", "odd:latest"])
    assert not reason or reason in reasons(config)["odd:latest"]


@pytest.mark.parametrize("readme", ["date: !!timestamp soon", "pipeline_tag: [text-ranking]"])
def test_model_with_an_odd_readme_is_listed(config_of, tmp_path, readme):
    """The README decides only if nothing else does, so it breaks no model."""
    (write_model(tmp_path / "own" / "m") / "README.md").write_text(f"---\n{readme}\n---\n")
    assert names(config_of()) == ["m:latest"]


def test_model_of_an_odd_family_is_listed_and_its_family_shown_as_text(config_of, tmp_path):
    write_model(tmp_path / "own" / "m", model_type=["llama"], vision_config={})
    (entry,) = catalog(config_of())
    assert entry.family == "['llama']" and "images are not served" in entry.no_images_reason


DEEP = "[" * 500 + "]" * 500
MANIFESTS = {
    "nested too deep": "[" * 100_000,
    "path with a null byte": '{"name": "odd", "path": "a\\u0000b"}',
    "infinite time": f'{{"name": "odd", "preset": {{}}, "installed_at": {HUGE}}}',
    "nested parameters": f'{{"name": "odd", "preset": {{"parameters": {{"a": {DEEP}}}}}}}',
}


@pytest.mark.parametrize("manifest", MANIFESTS.values(), ids=MANIFESTS)
def test_catalog_with_an_odd_manifest_in_the_store_lists_the_other_models(config_of, tmp_path, manifest):
    write_model(tmp_path / "own" / "fine")
    config = config_of()
    (write_model(config.models_dir / "odd") / layout.MANIFEST).write_text(manifest)
    assert "fine:latest" in names(config)
    assert all(0 <= entry.modified < 1e11 for entry in catalog(config))


def test_catalog_with_an_adapter_of_odd_values_lists_the_base_and_the_adapter_as_broken(config_of, tmp_path):
    write_model(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    settings = f'{{"peft_type": "LORA", "r": 8, "lora_alpha": {HUGE}}}'
    (tmp_path / "adapter" / "adapter_config.json").write_text(settings)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    config = config_of({"base": {"source": "path:base", "adapters": {"x": "path:adapter"}}})
    assert names(config) == ["base:latest"]
    assert "lora_alpha must be a number" in reasons(config)["base:x"]


def test_draft_model_with_a_tokenizer_of_odd_values_is_refused_and_the_others_are_listed(config_of, tmp_path):
    for name in ("base", "draft"):
        write_model(tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    (tmp_path / "draft" / "tokenizer.json").write_text('{"model": {"vocab": {"a": {}}}}')
    config = config_of({"base": {"source": "path:base", "draft": "path:draft"}})
    assert names(config) == ["base:draft"]
