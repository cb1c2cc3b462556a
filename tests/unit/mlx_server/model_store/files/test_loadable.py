"""Which language models mlx-lm can load, as it is decided before a download and without mlx-lm."""

import importlib
import sys

import pytest

from mlx_server.model_store.files import image_support, loadable
from mlx_server.model_store.files.loadable import fault


@pytest.mark.parametrize(
    "model_type", ["llama", "mistral", "qwen3", "gpt_oss", "kimi_k2", *sorted(image_support.FAMILIES)]
)
def test_language_model_of_a_family_of_mlx_lm_or_of_the_engine_is_loadable(model_type):
    """Some are in mlx-lm under another name, such as mistral, and some only in the engine."""
    assert fault({"model_type": model_type}, ("model.embed_tokens.weight",)) is None


@pytest.mark.parametrize(
    ("config", "tensors", "reason"),
    [
        ({"model_type": "t5"}, (), "its architecture t5 is not one"),
        ({"model_type": "whisper"}, (), "its architecture whisper is not one"),
        ({"model_type": "vit"}, (), "its architecture vit is not one"),
        ({"model_type": "../llama"}, (), "is not one"),
        ({"model_type": ["llama"]}, (), "is not one"),
        ({}, (), "names no model_type"),
        ({"model_type": "llama", "model_file": "own.py"}, (), "programs are not run"),
        ({"model_type": "llama"}, ("w.weight", "w.weight.absmax"), "quantized with bitsandbytes"),
        ({"model_type": "llama"}, ("w.weight", "w.SCB"), "quantized with bitsandbytes"),
    ],
)
def test_language_model_that_mlx_lm_cannot_load_has_a_reason(config, tensors, reason):
    """Such models were downloaded whole, listed, and failed when they were loaded."""
    assert reason in str(fault(config, tensors))


@pytest.mark.parametrize(
    "program", ["MODEL_REMAPPING = dict(mistral='llama')", "MODEL_REMAPPING = {1}", "from other import TABLE"]
)
def test_no_family_is_refused_if_mlx_lms_table_of_other_names_cannot_be_read(monkeypatch, tmp_path, program):
    """Such an mlx-lm would make each download of a language model fail."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "llama.py").touch()
    (tmp_path / "utils.py").write_text(program)
    monkeypatch.setattr(loadable, "_package_folder", lambda: tmp_path)
    monkeypatch.setattr(loadable, "_module_names", loadable._module_names.__wrapped__)
    monkeypatch.setattr(loadable, "_renamed", loadable._renamed.__wrapped__)
    assert fault({"model_type": "mistral"}, ()) is None


def test_names_of_families_are_found_without_importing_mlx_lm(monkeypatch):
    for name in [each for each in sys.modules if each.partition(".")[0] == "mlx_lm"]:
        monkeypatch.delitem(sys.modules, name)
    module = importlib.reload(importlib.import_module("mlx_server.model_store.files.loadable"))
    assert module.fault({"model_type": "mistral"}, ()) is None
    assert "mlx_lm" not in sys.modules
