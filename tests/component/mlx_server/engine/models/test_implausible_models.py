"""Models that compute NaN, or whose tokenizer is damaged, are refused while they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mlx_server.engine.errors import LoadError
from mlx_server.engine.models import language_loading
from mlx_server.engine.models.loading import load
from mlx_server.engine.models.self_test import run_self_test
from mlx_server.engine.models.weights.checks import stamp_of
from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.engine.models.weights.digests import FileDigest
from mlx_server.engine.models.weights.verification import Verification
from mlx_server.model_store import ModelEntry
from mlx_server.protocol import Done, Failed, Probe, Probed, Ready
from tests.component.mlx_server.engine.conftest import CHAT, Engine, chat
from tests.models.adapter_folders import VOCABULARY, write_base
from tests.models.embedder_folders import make
from tests.models.random_rerankers import FAMILIES


def write_chat_model(folder: Path) -> None:
    write_base(folder)
    vocab = {"type": "WordLevel", "vocab": {f"w{n}": n for n in range(VOCABULARY)}, "unk_token": "w0"}
    tokenizer = {"version": "1.0", "added_tokens": [], "model": vocab}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


def write_reranker(family: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        folder.mkdir()
        FAMILIES[family](folder)

    return write


MODELS: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "chat": ("generate", write_chat_model, "The logits of a token spread over nan."),
    "embedder": ("embed", lambda folder: make("bert", folder), "An embedding has length nan"),
    "cross-encoder": ("rerank", write_reranker("bert"), "The score of a document is nan."),
    "judge": ("rerank", write_reranker("qwen3"), "The score of a document is nan."),
}


def entry(kind: Any, folder: Path) -> ModelEntry:
    return ModelEntry("m:latest", folder, kind, 1, 1, 0.0, "mlx", "llama", "", "", 64, "")


def loaded(of: ModelEntry, verification: Verification | None = None) -> Any:
    found: list[Any] = []

    def run() -> Iterator[float]:
        found.append((yield from load(of, verification)))

    for _ in run():
        pass
    return found[0]


def put_nan_into_one_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = max(name for name in weights if ".layers.1." in name or ".layer.1." in name)
    save_file(weights | {name: np.full_like(weights[name], np.nan)}, folder / "model.safetensors")


@pytest.mark.parametrize("model", MODELS)
def test_model_with_nan_in_one_tensor_is_refused_with_its_folder_the_fault_and_the_remedy(tmp_path, model):
    """Such a model answered with an empty text, and then failed the self-test of engine after engine."""
    kind, write, fault = MODELS[model]
    folder = tmp_path / "model"
    write(folder)
    close = getattr(loaded(entry(kind, folder)), "close", None)
    if close:
        close()
    put_nan_into_one_tensor(folder)
    with pytest.raises(LoadError) as refused:
        loaded(entry(kind, folder))
    message = str(refused.value)
    assert message.startswith(f"Model m:latest could not be loaded: {folder}: {fault}")
    assert message.endswith("Its weights are damaged; pull or convert the model again")


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON", '{"version": "1.0", "model": {}}', ""])
@pytest.mark.parametrize("model", MODELS)
def test_model_with_a_damaged_tokenizer_is_refused_with_the_file_and_the_remedy(tmp_path, model, content):
    """A tokenizer.json with `{}` was reported as: 'added_tokens' (KeyError)."""
    kind, write, _ = MODELS[model]
    folder = tmp_path / "model"
    write(folder)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(LoadError, match=r"tokenizer\.json: not a tokenizer \(.*\); fetch the model again$"):
        loaded(entry(kind, folder))


def test_model_with_a_damaged_tokenizer_configuration_is_refused_with_the_file(tmp_path):
    write_chat_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer_config.json").write_text("{")
    with pytest.raises(LoadError, match=r"tokenizer_config\.json: not JSON"):
        loaded(entry("generate", tmp_path / "model"))


def test_load_tests_files_of_weights_until_a_load_of_them_was_verified(tmp_path, monkeypatch):
    """The forward pass takes time in which an engine that replaces another one cannot answer."""
    tested: list[int] = []
    real = language_loading.logits_fault

    def record(model: Any, token: int) -> str:
        tested.append(token)
        return real(model, token)

    monkeypatch.setattr(language_loading, "logits_fault", record)
    folder = tmp_path / "model"
    write_chat_model(folder)
    verification = Verification(DigestFile(tmp_path / "digests.json"), lambda: None, lambda seconds: None)
    loaded(entry("generate", folder), verification).close()
    loaded(entry("generate", folder), verification).close()
    assert len(tested) == 2, "no load of these files was verified before"
    verification.served_all()
    verification.wait(10)
    loaded(entry("generate", folder), verification).close()
    assert len(tested) == 2
    put_nan_into_one_tensor(folder)
    for _ in range(2):
        with pytest.raises(LoadError, match="The logits of a token spread over nan"):
            loaded(entry("generate", folder), verification)


def test_model_that_fails_the_self_test_is_tested_by_the_load_of_the_next_engine(tmp_path):
    """A file beside the weights can make a model compute NaN whose weights have passed the test."""
    folder, digests = tmp_path / "model", DigestFile(tmp_path / "digests.json")
    write_chat_model(folder)
    verification = Verification(digests, lambda: None, lambda seconds: None)
    loaded(entry("generate", folder), verification).close()
    verification.served_all()
    verification.wait(10)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": float("nan")}))
    model = loaded(entry("generate", folder), verification)
    ok, sentence = run_self_test({"m:latest": model})
    assert not ok and "Model m:latest computes no plausible result" in sentence
    model.close()
    verification.self_test_failed()
    with pytest.raises(LoadError, match="The logits of a token spread over nan"):
        loaded(entry("generate", folder), Verification(DigestFile(tmp_path / "digests.json")))


def test_load_tests_files_of_weights_that_were_only_read_and_compared(tmp_path):
    """The digest of a file says that it is the same as before, not that a model with it computes."""
    folder, digests = tmp_path / "model", DigestFile(tmp_path / "digests.json")
    write_chat_model(folder)
    put_nan_into_one_tensor(folder)
    weights = folder / "model.safetensors"
    digests.put(weights, FileDigest(stamp_of(weights), "0" * 64))
    verification = Verification(digests, lambda: None, lambda seconds: None)
    with pytest.raises(LoadError, match="The logits of a token spread over nan"):
        loaded(entry("generate", folder), verification)


@pytest.mark.model
@pytest.mark.timeout(240)
def test_engine_with_a_model_that_computes_nan_serves_the_others_and_passes_its_self_test(
    home: Path, small_models_dir: Path, tmp_path: Path
):
    """One such model once opened the breaker for all models."""
    write_chat_model(tmp_path / "found" / "nan")
    put_nan_into_one_tensor(tmp_path / "found" / "nan")
    engine = Engine(
        home,
        {
            "VESTAL_MODELS_DIR": str(small_models_dir),
            "VESTAL_MLX__MODELS_FOLDER": str(tmp_path / "found"),
            "MLX_PRELOAD_MODELS": f"nan,{CHAT}",
        },
    )
    try:
        assert engine.wait(lambda event: isinstance(event, Ready)).loaded == (CHAT,)
        engine.send(chat("good", "Hello", max_tokens=2), Probe("probe"))
        assert isinstance(engine.answer("good", Done), Done)
        assert engine.answer("probe", Probed).ok
        (failed,) = (event for event in engine.events if isinstance(event, Failed))
        assert failed.code == "model_load_failed"
        assert "Model nan:latest" in failed.message and "spread over nan" in failed.message
    finally:
        engine.close()
