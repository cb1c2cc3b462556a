"""Models derived from others: they share files, and survive what happens to their parents."""

import hashlib
import json
import os
import struct

import pytest

from mlx_server.engine.settings import EngineSettings
from mlx_server.model_store import (
    ModelStoreError,
    Preset,
    catalog,
    disk,
    find,
    layout,
    make,
    making,
    remove,
    survey,
)
from mlx_server.model_store.blobs import Blobs
from mlx_server.model_store.gguf import converter_process
from vestal.config import load

HEADER = {"w": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}


def write_model(folder, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8} | config))
    (folder / "tokenizer.json").write_text("{}")
    raw = json.dumps(HEADER).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
    return folder


@pytest.fixture
def config(tmp_path):
    """Return a configuration with `base`, a model in the store, and `own`, one in a folder of the user's."""
    settings = {
        "models": {"base": {"source": "hf:org/base"}, "own": {"source": f"path:{tmp_path}/own-files"}},
        "mlx": {"models_folder": str(tmp_path / "folder")},
    }
    (tmp_path / "vestal.yaml").write_text(json.dumps(settings))
    config = load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)
    folder = write_model(layout.installed_path(config.models_dir, "base:latest"))
    layout.write_manifest(folder, "base:latest", {"source": "hf:org/base"})
    write_model(tmp_path / "own-files")
    write_model(tmp_path / "folder" / "taken")
    return config


def made(config, name, base="base", **preset):
    parent = find(config, base)
    assert parent is not None
    make(config, name, parent, Preset(parent=parent.name, **preset))
    entry = find(config, name)
    assert entry is not None
    return entry


@pytest.mark.parametrize("base", ["base", "own"])
def test_derived_model_has_its_own_preset_and_the_weights_of_its_parent(config, base):
    parameters = {"temperature": 0.1, "stop": ["END"]}
    messages = ({"role": "user", "content": "Hi"},)
    entry = made(config, "Mario", base, system="You are Mario.", parameters=parameters, messages=messages)
    parent = find(config, base)
    assert parent is not None
    assert (entry.name, entry.loaded_as) == ("Mario:latest", f"{base}:latest")
    assert entry.preset == Preset(f"{base}:latest", "You are Mario.", "", parameters, messages)
    assert entry.digest != parent.digest and len(entry.digest) == 64
    assert entry.bytes - parent.bytes < 1000
    assert os.path.samefile(entry.path / "model.safetensors", parent.path / "model.safetensors")


def test_derived_model_survives_removal_of_its_parent_and_then_loads_its_own_files(config):
    made(config, "mario", system="You are Mario.")
    made(config, "luigi", system="You are Luigi.")
    assert remove(config, "base")
    mario, luigi = find(config, "mario"), find(config, "luigi")
    assert mario is not None and luigi is not None
    assert mario.preset.system == "You are Mario."
    assert {mario.loaded_as, luigi.loaded_as} == {"luigi:latest"}  # one of them, for both


def test_model_derived_from_a_derived_model_inherits_its_preset(config):
    made(config, "mario", system="You are Mario.", parameters={"temperature": 0.1, "top_k": 5})
    entry = made(config, "luigi", "mario", parameters={"top_k": 7})
    assert entry.preset.system == "You are Mario."
    assert entry.preset.parameters == {"temperature": 0.1, "top_k": 7}
    assert entry.loaded_as == "base:latest"


def test_derived_model_replaces_an_earlier_one_whose_name_differs_only_in_letter_case(config):
    made(config, "Mario", system="one")
    entry = made(config, "mario", system="two")
    assert (entry.name, entry.preset.system) == ("Mario:latest", "two")
    assert [each.name for each in catalog(config)].count("Mario:latest") == 1


def test_removal_of_a_derived_model_does_not_remove_its_parent(config):
    made(config, "mario", system="x")
    assert remove(config, "MARIO")
    assert find(config, "mario") is None
    assert find(config, "base") is not None
    assert not [path for path in config.models_dir.iterdir() if path.name.startswith(".changing")]


def test_derived_model_without_a_preset_has_the_digest_of_its_parent(config):
    entry, parent = made(config, "twin"), find(config, "base")
    assert parent is not None
    assert entry.digest == parent.digest


@pytest.mark.parametrize("name", ["base", "BASE:latest", "library/own", "taken", "smollm2:135m"])
def test_derived_model_named_like_a_configured_or_installed_model_is_refused(config, name):
    parent = find(config, "base")
    assert parent is not None
    with pytest.raises(ModelStoreError, match="Choose another name") as raised:
        make(config, name, parent, Preset(system="x"))
    assert raised.value.code == "name_taken"


def test_derived_model_whose_name_maps_to_the_folder_of_another_model_is_refused(config):
    made(config, "a/b", system="x")
    with pytest.raises(ModelStoreError, match="a/b:latest"):
        made(config, "a--b", system="y")


def test_derived_model_whose_system_prompt_exceeds_the_size_limit_of_presets_is_refused(config):
    with pytest.raises(ModelStoreError) as raised:
        made(config, "mario", system="x" * making.MAX_PRESET_BYTES)
    assert raised.value.code == "preset_too_large"


def test_damaged_model_preset_is_read_without_its_invalid_fields(config):
    entry = made(config, "mario", system="You are Mario.")
    folder = layout.installed_path(config.models_dir, "mario:latest")
    preset = {
        "system": 5,
        "parameters": [],
        "messages": ["x", {"role": "user"}],
        "licenses": 3,
        "parent": None,
    }
    layout.write_manifest(folder, "mario:latest", {"preset": preset})
    found = find(config, "mario")
    assert found is not None
    assert found.preset == Preset(messages=({"role": "user"},))
    assert entry.path == found.path


def test_stored_model_that_is_not_configured_is_listed_only_if_it_has_a_manifest(config):
    folder = write_model(layout.installed_path(config.models_dir, "org/pulled:latest"))
    layout.write_manifest(folder, "org/pulled:latest", {"source": "hf:org/pulled"})
    write_model(config.models_dir / "without-manifest")
    assert "org/pulled:latest" in {entry.name for entry in catalog(config)}
    assert len(survey(config)[0]) == 4


def upload(blobs, content):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    upload = blobs.upload(digest)
    upload.write(content)
    upload.finish()
    upload.close()
    return digest


def test_model_created_from_uploads_has_the_safetensors_files_and_no_uploaded_programs(config, tmp_path):
    blobs, source = Blobs(config.models_dir), write_model(tmp_path / "upload")
    files = {path.name: upload(blobs, path.read_bytes()) for path in source.iterdir()}
    files |= {"modeling.py": upload(blobs, b"print()"), "../escape.json": upload(blobs, b"[]")}
    making.make_of_files(config, "uploaded", files, Preset(system="x"))
    entry = find(config, "uploaded")
    assert entry is not None
    assert (entry.loaded_as, entry.preset.system) == ("uploaded:latest", "x")
    assert {path.name for path in entry.path.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", layout.MANIFEST)
    }
    assert not any(blobs.has(digest) for digest in files.values())


def test_model_created_from_invalid_uploads_is_refused_and_leaves_nothing(config):
    blobs = Blobs(config.models_dir)
    with pytest.raises(ModelStoreError) as raised:
        making.make_of_files(config, "x", {"config.json": upload(blobs, b"{}")}, Preset())
    assert raised.value.code == "not_a_model"
    assert str(config.models_dir) not in raised.value.message
    assert find(config, "x") is None
    missing = f"sha256:{'0' * 64}"
    with pytest.raises(ModelStoreError, match=r"config\.json was not uploaded"):
        making.make_of_files(config, "x", {"config.json": missing}, Preset())


def gguf(architecture):
    """Return a GGUF file of this architecture, without tensors."""
    texts = [text.encode() for text in ("general.architecture", architecture)]
    key, value = (struct.pack("<Q", len(text)) + text for text in texts)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<I", 8) + value


def test_model_made_of_a_language_model_and_its_image_encoder_in_gguf_is_converted_from_the_language_model(
    config, monkeypatch
):
    """A Modelfile names both files. The first one by name, `mmproj-F16.gguf`, was once converted."""
    blobs, converted = Blobs(config.models_dir), []

    def convert(_name, source, staged, _step):
        converted.append(source.read_bytes())
        write_model(staged)

    monkeypatch.setattr(converter_process, "run", convert)
    files = {"mmproj-F16.gguf": upload(blobs, gguf("clip")), "qwen.gguf": upload(blobs, gguf("qwen2vl"))}
    making.make_of_files(config, "vl", files, Preset())
    assert converted == [gguf("qwen2vl")]
    assert find(config, "vl")


def test_model_created_from_several_gguf_files_is_refused(config):
    blobs = Blobs(config.models_dir)
    files = {"b.gguf": upload(blobs, gguf("llama")), "a.gguf": upload(blobs, b"damaged")}
    with pytest.raises(ModelStoreError, match=r"2 GGUF files with a model, a\.gguf, b\.gguf") as caught:
        making.make_of_files(config, "x", files, Preset())
    assert caught.value.code == "not_a_model"
    assert find(config, "x") is None


@pytest.mark.parametrize("digest", ["sha256:00", "md5:" + "0" * 64, "../../etc/passwd", "sha256:" + "g" * 64])
def test_upload_with_an_invalid_digest_is_refused(config, digest):
    with pytest.raises(ModelStoreError) as raised:
        Blobs(config.models_dir).has(digest)
    assert raised.value.code == "invalid_digest"


def test_embedding_model_created_from_uploads_keeps_its_pooling_configuration(config, tmp_path):
    """`ollama create` uploads the configurations in the folders of a model, such as 1_Pooling/config.json."""
    blobs, source = Blobs(config.models_dir), write_model(tmp_path / "upload", model_type="bert")
    files = {path.name: upload(blobs, path.read_bytes()) for path in source.iterdir()}
    files |= {"tokenizer.json": upload(blobs, b"{}"), "1_Pooling/other.py": upload(blobs, b"print()")}
    pooling = b'{"pooling_mode_cls_token": true}'
    making.make_of_files(
        config, "embedder", files | {"1_Pooling/config.json": upload(blobs, pooling)}, Preset()
    )
    entry = find(config, "embedder")
    assert entry is not None and entry.kind == "embed"
    assert [path.name for path in (entry.path / "1_Pooling").iterdir()] == ["config.json"]


def test_upload_whose_content_contradicts_its_digest_is_refused_and_deleted(config):
    blobs, digest = Blobs(config.models_dir), f"sha256:{'0' * 64}"
    upload = blobs.upload(digest)
    upload.write(b"other")
    with pytest.raises(ModelStoreError, match="digest mismatch") as raised:
        upload.finish()
    upload.close()
    assert raised.value.code == "checksum_mismatch"
    assert list((config.models_dir / ".blobs").iterdir()) == []


def test_upload_for_which_the_disk_has_no_room_is_refused_and_deleted(config):
    free = [disk.MARGIN_BYTES + 10]
    blobs = Blobs(config.models_dir, lambda folder: free[0])
    upload = blobs.upload(f"sha256:{'0' * 64}")
    upload.write(b"x" * 10)
    free[0] -= 10
    with pytest.raises(ModelStoreError) as raised:
        upload.write(b"x")
    upload.close()
    assert raised.value.code == "disk_full"
    assert list((config.models_dir / ".blobs").iterdir()) == []
    free[0] -= 1
    with pytest.raises(ModelStoreError):
        blobs.upload(f"sha256:{'0' * 64}")


def test_upload_of_an_announced_size_that_the_disk_cannot_hold_is_refused_at_its_beginning(config):
    """An upload of 100 MB to a disk with 39.6 MiB free began, failed midway, and said it needed 64 MiB."""
    blobs = Blobs(config.models_dir, lambda folder: disk.MARGIN_BYTES + 10 * 1024**2)
    with pytest.raises(ModelStoreError, match=r"needs 84\.0 MiB of disk, and 74\.0 MiB are free"):
        blobs.upload(f"sha256:{'0' * 64}", 20 * 1024**2)
    assert list((config.models_dir / ".blobs").iterdir()) == []
    blobs.upload(f"sha256:{'0' * 64}", 10 * 1024**2).close()


def test_upload_of_an_announced_size_is_refused_once_the_disk_cannot_hold_its_rest(config):
    free = [disk.MARGIN_BYTES + 20]
    upload = Blobs(config.models_dir, lambda folder: free[0]).upload(f"sha256:{'0' * 64}", 20)
    upload.write(b"x" * 10)
    free[0] -= 10
    upload.write(b"x")
    free[0] -= 2
    with pytest.raises(ModelStoreError) as raised:
        upload.write(b"x")
    upload.close()
    assert raised.value.code == "disk_full"


def test_unused_uploads_are_deleted_after_a_day(config):
    blobs = Blobs(config.models_dir)
    digest = upload(blobs, b"content")
    folder = config.models_dir / ".blobs"
    (folder / ".working-dead").mkdir()
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    with blobs.working_folder() as working:
        assert list(folder.iterdir()) == [working]
    assert not blobs.has(digest)


def test_upload_that_a_client_asks_for_or_uses_is_kept_for_another_day(config, tmp_path):
    """A file that was a day old was deleted between the check that it is there and its use."""
    blobs, source = Blobs(config.models_dir), write_model(tmp_path / "upload")
    files = {path.name: upload(blobs, path.read_bytes()) for path in source.iterdir()}
    for path in (config.models_dir / ".blobs").iterdir():
        os.utime(path, (0, 0))
    assert blobs.has(files["config.json"])
    with blobs.working_folder():
        assert blobs.has(files["config.json"])
        assert not blobs.has(files["tokenizer.json"])
    for name in set(files) - {"config.json"}:
        upload(blobs, (source / name).read_bytes())
    for path in (config.models_dir / ".blobs").iterdir():
        os.utime(path, (0, 0))
    making.make_of_files(config, "uploaded", files, Preset())
    assert find(config, "uploaded")


def test_weights_that_a_derived_model_shares_with_its_base_model_are_preloaded_only_once(config):
    made(config, "mario", system="x")
    mlx = config.mlx.model_copy(update={"preload": ["MARIO", "base", "gone"]})
    settings = EngineSettings.from_config(config.model_copy(update={"mlx": mlx}))
    assert settings.with_shared_weights(catalog(config)).preload == ("base:latest", "gone:latest")
