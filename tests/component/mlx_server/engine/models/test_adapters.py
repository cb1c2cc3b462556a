"""Adapters in memory: they compute what mlx-lm computes, and share the weights of their base."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3_moe
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_adapters, load_model, quantize_model, save_model

from mlx_server.engine.errors import LoadError
from mlx_server.engine.models import language_loading
from mlx_server.engine.models.loading import load, weights_bytes
from mlx_server.model_store import ModelEntry
from mlx_server.model_store.adapters import read_adapter
from tests.component.mlx_server.engine.models import tiny_models
from tests.models.adapter_folders import SHAPES, as_peft, write_adapter, write_adapter_for, write_base

TOKENS = [3, 17, 42, 99, 5]
TOLERANCE = 2e-5


def entry(base: Path, adapter: Path | None = None, weights_id: str = "base", digest: str = "d") -> ModelEntry:
    plain = ModelEntry(
        base.name,
        base,
        "generate",
        1,
        1,
        0.0,
        "mlx",
        "llama",
        "",
        "",
        512,
        digest=digest,
        weights_id=weights_id,
    )
    if adapter is None:
        return plain
    return replace(plain, name=adapter.name, adapter=read_adapter(adapter, base, digest))


def loaded(of: ModelEntry) -> Any:
    found: list[Any] = []

    def run() -> Iterator[float]:
        found.append((yield from load(of)))

    for _ in run():
        pass
    return found[0]


def logits(model: Any) -> mx.array:
    return model(mx.array([TOKENS]))[0].astype(mx.float32)


def reference(base: Path, adapter: Path | None) -> mx.array:
    """Return the logits of mlx-lm's own model; in float32, as the CPU build is used here."""
    model, _ = load_model(base)
    if adapter is not None:
        load_adapters(model, str(adapter))
    model.eval()
    return logits(model)


def difference(a: mx.array, b: mx.array) -> float:
    return cast(float, mx.max(mx.abs(a - b)).item())


@pytest.fixture(autouse=True)
def without_tokenizer(monkeypatch):
    """The small models have none, and these tests make no text."""
    monkeypatch.setattr(
        language_loading,
        "_read_tokenizer",
        lambda *_: (SimpleNamespace(_tokenizer=None), frozenset({2}), None),
    )
    monkeypatch.setattr(language_loading, "output_markers", lambda _: None)
    monkeypatch.setattr(language_loading, "decoder_of", lambda _: str)
    monkeypatch.setattr(language_loading, "_prompt_maker", lambda _, templates, *__: _NoPrompts(templates))


class _NoPrompts:
    def __init__(self, templates: Any) -> None:
        self.templates = templates

    def with_needs(self) -> _NoPrompts:
        return self


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_adapter_computes_the_same_logits_as_in_mlx_lm(base, tmp_path, method):
    adapter = write_adapter(tmp_path / "a", tuple(SHAPES), method=method)
    model = loaded(entry(base, adapter))
    ours = logits(model.model)
    assert difference(ours, reference(base, adapter)) < TOLERANCE
    assert difference(ours, reference(base, None)) > 0.1, "the adapter changes nothing"
    model.close()


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_adapter_in_peft_format_computes_the_same_logits_as_in_mlx_lm_format(base, tmp_path, method):
    adapter = write_adapter(tmp_path / "a", tuple(SHAPES), method=method)
    model = loaded(entry(base, as_peft(adapter, tmp_path / "peft")))
    assert difference(logits(model.model), reference(base, adapter)) < TOLERANCE
    model.close()


def test_adapter_of_a_quantized_base_model_computes_the_same_logits_as_in_mlx_lm(base, tmp_path):
    model, config = load_model(base)
    quantized, config = quantize_model(model, config, 32, 4)
    target = tmp_path / "quantized"
    save_model(target, quantized)
    (target / "config.json").write_text(json.dumps(config))
    (target / "tokenizer.json").write_text("{}")
    adapter = write_adapter(tmp_path / "a", tuple(SHAPES))
    ours, plain = loaded(entry(target, adapter)), loaded(entry(target))
    assert plain.shared is ours.shared
    assert difference(logits(ours.model), reference(target, adapter)) < 1e-3  # the CPU's base is dense
    assert difference(logits(plain.model), reference(target, None)) < 1e-3
    ours.close()
    plain.close()


@pytest.mark.parametrize("first", ["base", "adapter"])
def test_base_model_and_its_adapters_share_one_copy_of_the_weights(base, tmp_path, first):
    one, two = write_adapter(tmp_path / "one"), write_adapter(tmp_path / "two", seed=5)
    entries = [entry(base), entry(base, one), entry(base, two)]
    models = [loaded(each) for each in (entries if first == "base" else entries[::-1])]
    held = {id(array) for model in models for _, array in tree_flatten(model.model.parameters())}
    weights = {id(array) for _, array in tree_flatten(models[0].shared.model.parameters())}
    own = {
        id(array)
        for model in models
        for name, array in tree_flatten(model.model.parameters())
        if "lora_" in name
    }
    assert held == weights | own
    assert len(own) == 2 * (2 * 2 * 2), "two parts of two layers in two blocks, for each adapter"
    assert len({id(model.shared) for model in models}) == 1
    by_adapter = sorted(model.adapter_bytes for model in models)
    assert by_adapter[0] == 0 and by_adapter[1] == by_adapter[2] == one.joinpath(
        "adapters.safetensors"
    ).stat().st_size - _header(one)
    assert {weights_bytes(m) - m.adapter_bytes for m in models} == {
        sum(a.nbytes for _, a in tree_flatten(models[0].shared.model.parameters()))
    }
    for model in models:
        model.close()


def _header(folder: Path) -> int:
    raw = (folder / "adapters.safetensors").read_bytes()
    return 8 + int.from_bytes(raw[:8], "little")


def test_adapter_adds_only_its_own_bytes_and_shared_weights_are_freed_with_the_last_model(base, tmp_path):
    gc.collect()
    before = mx.get_active_memory()
    model = loaded(entry(base))
    with_base = mx.get_active_memory()
    adapted = loaded(entry(base, write_adapter(tmp_path / "a")))
    assert mx.get_active_memory() - with_base <= adapted.adapter_bytes + 64 * 1024
    ours = logits(adapted.model)
    model.close()
    del model
    gc.collect()
    assert mx.get_active_memory() >= with_base, "the base's weights are the adapter's too"
    assert difference(logits(adapted.model), ours) == 0
    adapted.close()
    del adapted, ours
    gc.collect()
    assert mx.get_active_memory() - before < 64 * 1024
    assert "base" not in language_loading._in_memory


def test_base_model_computes_the_same_logits_after_an_adapter_is_loaded(base, tmp_path):
    model = loaded(entry(base))
    before = logits(model.model)
    adapted = loaded(entry(base, write_adapter(tmp_path / "a", tuple(SHAPES))))
    mx.eval(logits(adapted.model))
    assert difference(logits(model.model), before) == 0
    model.close()
    adapted.close()


def test_model_identity_differs_between_the_base_model_and_each_adapter(base, tmp_path):
    same_shape = [write_adapter(tmp_path / name, seed=seed) for name, seed in (("one", 5), ("two", 6))]
    models = [loaded(entry(base)), *(loaded(entry(base, folder)) for folder in same_shape)]
    assert len({model.identity for model in models}) == 3
    for model in models:
        model.close()


def test_two_base_models_with_different_weights_do_not_share_them(base, tmp_path):
    other = write_base(tmp_path / "other", seed=9)
    models = [loaded(entry(base)), loaded(entry(other, weights_id="other"))]
    assert models[0].shared is not models[1].shared
    assert difference(logits(models[0].model), logits(models[1].model)) > 0.01
    for model in models:
        model.close()


def test_adapter_whose_file_has_changed_since_it_was_listed_is_refused(base, tmp_path):
    adapter = write_adapter(tmp_path / "a")
    listed = entry(base, adapter)
    write_adapter(adapter, rank=8)
    with pytest.raises(LoadError, match=r"lora_a has the shape \[64, 8\], and the model needs \[64, 4\]"):
        loaded(listed)


def experts() -> tuple[Any, dict[str, Any]]:
    """Return a model with layers of experts, as Qwen 3's, and its configuration."""
    args = qwen3_moe.ModelArgs(
        model_type="qwen3_moe", hidden_size=64, num_hidden_layers=2, intermediate_size=64,
        num_attention_heads=2, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1,
        mlp_only_layers=[], moe_intermediate_size=32,
        rms_norm_eps=1e-5, vocab_size=256, num_key_value_heads=1, head_dim=32, rope_theta=1e4,
        tie_word_embeddings=True, max_position_embeddings=512, norm_topk_prob=True,
    )  # fmt: skip
    return qwen3_moe.Model(args), asdict(args)


KINDS = {**tiny_models.KINDS, "experts": experts}


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_written_by_mlx_lm_for_each_model_family_computes_the_same_logits(tmp_path, kind):
    """The names of layers differ between families, and experts have adapters of three dimensions."""
    mx.random.seed(3)
    model, config = KINDS[kind]()
    model.set_dtype(mx.float32)
    base, adapter = tmp_path / "base", tmp_path / "a"
    for folder in (base, adapter):
        folder.mkdir()
    mx.save_safetensors(str(base / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (base / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    (base / "tokenizer.json").write_text("{}")
    parameters = {"rank": 4, "scale": 10.0, "dropout": 0.0}
    model.freeze()
    linear_to_lora_layers(model, 2, parameters)
    trained = {
        name: mx.random.normal(values.shape) * 0.2
        for name, values in tree_flatten(model.trainable_parameters())
    }
    mx.save_safetensors(str(adapter / "adapters.safetensors"), trained)
    settings = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    ours = loaded(entry(base, adapter))
    assert difference(logits(ours.model), reference(base, adapter)) < TOLERANCE
    assert difference(logits(ours.model), reference(base, None)) > 0.01, "the adapter changes nothing"
    ours.close()


def test_adapter_with_nan_weights_is_refused_and_its_base_model_is_unchanged(base, tmp_path):
    """With such an adapter, each engine would fail its self test, and the gateway would replace it."""
    model = loaded(entry(base))
    before = logits(model.model)
    with pytest.raises(LoadError, match="The logits of a token spread over nan"):
        loaded(entry(base, write_adapter(tmp_path / "a", strength=float("nan"))))
    assert difference(logits(model.model), before) == 0
    model.close()


@pytest.mark.model
def test_adapter_of_the_real_chat_model_computes_the_same_logits_as_in_mlx_lm(models_dir, tmp_path):
    folder = models_dir / "smollm2__135m"
    adapter = write_adapter_for(folder, tmp_path / "a", strength=0.02)
    base, adapted = loaded(entry(folder)), loaded(entry(folder, adapter))
    plain, ours = logits(base.model), logits(adapted.model)
    assert adapted.shared is base.shared
    assert difference(ours, plain) > 0.5, "the adapter has no visible effect"
    mx.eval(plain, ours)
    base.close()
    adapted.close()
    del base, adapted
    gc.collect()
    assert difference(ours, reference(folder, adapter)) < 1e-3
