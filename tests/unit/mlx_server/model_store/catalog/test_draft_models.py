"""Draft models in the configuration: which model guesses for which, and why one is refused at listing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_server.model_store import ModelEntry, ModelStoreError, ensure, find, survey
from mlx_server.model_store.forecasts import THIS_MACHINE, files_of, forecast_of
from tests.models.adapter_folders import write_base
from vestal.config import ConfigError, load

WORDS = {"a": 0, "b": 1, "c": 2}


def write_vocabulary(folder: Path, words: Any = WORDS, added: tuple[tuple[int, str], ...] = ()) -> None:
    tokens = [{"id": id, "content": text} for id, text in added]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}, "added_tokens": tokens}))


@pytest.fixture
def config_of(tmp_path):
    """Return a function that loads a configuration of these models. The folders `large` and `small` hold
    models with the same vocabulary.
    """
    write_vocabulary(write_base(tmp_path / "large"))
    write_vocabulary(write_base(tmp_path / "small", seed=2, num_hidden_layers=2))

    def of(models: dict[str, Any], **mlx: Any):
        (tmp_path / "vestal.yaml").write_text(json.dumps({"models": models, "mlx": mlx}))
        return load({"VESTAL_HOME": str(tmp_path / "home"), "HOME": str(tmp_path)}, tmp_path)

    return of


def listed(config: Any, name: str) -> ModelEntry:
    entry = find(config, name)
    assert entry is not None
    return entry


def by_source(config_of, **mlx):
    return config_of({"large": {"source": "path:large", "draft": "path:small"}}, **mlx)


@pytest.mark.parametrize("draft", ["tiny", "TINY:latest", "path:small"])
def test_draft_model_is_found_by_its_name_or_by_its_source(config_of, draft):
    config = config_of({"large": {"source": "path:large", "draft": draft}, "tiny": {"source": "path:small"}})
    entry = listed(config, "large")
    assert entry.draft is not None
    assert entry.draft.name == ("large:draft" if ":s" in draft else "tiny:latest")
    assert entry.draft.path.name == "small"
    assert entry.as_json()["draft"] == entry.draft.name
    assert listed(config, entry.draft.name).draft is None


def test_draft_model_given_by_source_is_downloaded_and_listed_as_a_model_of_its_own(config_of):
    config = by_source(config_of)
    assert [entry.name for entry in ensure(config, ["large"])] == ["large:latest"]
    assert listed(config, "large:draft")


def test_memory_forecast_counts_the_weights_and_the_cache_of_the_draft_model(config_of):
    config = by_source(config_of)
    with_draft, draft = listed(config, "large"), listed(config, "large:draft")
    alone = listed(config_of({"large": {"source": "path:large"}}), "large")
    both, small, large = (
        forecast_of(entry, files_of(entry), THIS_MACHINE, step_tokens=128, kv=None)
        for entry in (with_draft, draft, alone)
    )
    assert both.resident_bytes == large.resident_bytes + small.weights.bytes
    assert small.kv is not None
    assert both.requests_bytes(2, 300) == large.requests_bytes(2, 300) + small.kv.bytes(2, 300, 128)
    assert both.shared_bytes == large.shared_bytes


@pytest.mark.parametrize(
    ("words", "added", "reason"),
    [
        ({"a": 0, "c": 1, "b": 2}, (), "token 1 is 'c', not 'b'"),
        ({f"{n}": n for n in range(9)}, (), "token 0 is '0', not 'a'"),
        (WORDS | {f"{n}": n for n in range(3, 9)}, (), "it has 9 tokens, not 3"),
        ([["a", -1.0], ["b", -2.0], ["x", -3.0]], (), "token 2 is 'x', not 'c'"),
        (WORDS, ((2, "<end>"),), "token 2 is '<end>', not 'c'"),
    ],
)
def test_draft_model_with_another_vocabulary_is_refused_when_models_are_listed(
    config_of, tmp_path, words, added, reason
):
    """The draft model's guesses would be other words: the large model would only get slower."""
    write_vocabulary(tmp_path / "small", words, added)
    config = by_source(config_of)
    entries, broken = survey(config)
    assert "large:latest" not in [entry.name for entry in entries]
    (refused,) = broken
    assert refused.name == "large:latest"
    assert refused.reason.startswith("large:draft cannot draft for it: it has another vocabulary")
    assert reason in refused.reason and "take `draft` out of the configuration" in refused.reason
    with pytest.raises(ModelStoreError, match=r"large:latest is refused: .*another vocabulary.*\. Name a"):
        ensure(config, ["large"])


def test_draft_model_whose_vocabulary_differs_only_in_reserved_tokens_is_accepted(config_of, tmp_path):
    many = {f"w{n}": n for n in range(1000)}
    write_vocabulary(tmp_path / "large", many, ((1000, "<end>"), (1001, "<reserved>")))
    write_vocabulary(tmp_path / "small", many, ((1000, "<end>"),))
    assert listed(by_source(config_of), "large").draft


def test_draft_model_without_a_readable_vocabulary_is_refused(config_of, tmp_path):
    (tmp_path / "small" / "tokenizer.json").unlink()
    (_, broken) = survey(by_source(config_of))
    assert "only" in broken[0].reason and "has a tokenizer.json" in broken[0].reason
    (tmp_path / "small" / "tokenizer.json").write_text("[]")
    (_, broken) = survey(by_source(config_of))
    assert "tokenizer.json: TypeError" in broken[0].reason


def test_model_whose_draft_model_is_not_installed_is_served_without_it(config_of, caplog):
    config = config_of({"large": {"source": "path:large", "draft": "path:nowhere"}})
    assert listed(config, "large").draft is None
    assert "large:latest is served without its draft large:draft, which is not installed" in caplog.text


def test_model_has_no_draft_model_where_drafting_is_off(config_of):
    assert listed(by_source(config_of, drafting=False), "large").draft is None


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ({"a": {"source": "path:x", "draft": "A:latest"}}, "a is its own `draft`"),
        (
            {"a": {"source": "path:x", "draft": "b"}, "b": {"source": "path:y", "draft": "A:latest"}},
            "each of a, b, a has the next as its `draft`, in a circle: take",
        ),
        (
            {"a": {"source": "path:x", "draft": "a:own", "adapters": {"own": "path:y"}}},
            "each of a, a:own has the next as its `draft`, in a circle",
        ),
        ({"a": {"source": "path:x", "draft": "hf:"}}, "not a source"),
        ({"a": {"source": "path:x", "draft": ""}}, "give the name of a model"),
        (
            {"a": {"source": "path:x", "draft": "path:y"}, "a:draft": {"source": "path:z"}},
            "the draft of a is named like a:draft",
        ),
    ],
)
def test_config_with_a_circle_of_draft_models_or_an_invalid_draft_source_or_a_taken_draft_name_is_refused(
    config_of, models, reason
):
    with pytest.raises(ConfigError, match=reason):
        config_of(models)
