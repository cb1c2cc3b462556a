"""A tokenizer is read once, and again only if its files have changed."""

from __future__ import annotations

import gc
import json
import weakref

import pytest

from mlx_server.engine.models import tokenizers
from mlx_server.engine.models.tokenizers import preload_tokenizers, take_tokenizer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 1}))
    vocab = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "model": vocab})
    )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return tmp_path


def test_take_tokenizer_returns_a_preloaded_tokenizer_and_holds_no_reference_to_it(folder):
    preload_tokenizers([folder])
    preloaded = weakref.ref(tokenizers._preloaded[folder][1])
    taken = take_tokenizer(folder, {"eos_token_id": 1})
    assert taken is preloaded()
    assert taken is not None and set(taken.eos_token_ids) == {1}
    del taken
    gc.collect()
    assert preloaded() is None


def test_take_tokenizer_shares_a_tokenizer_that_is_in_use(folder):
    """An early check reads the tokenizer of a model that is about to be loaded: once is enough."""
    first = take_tokenizer(folder, {"eos_token_id": 1})
    assert take_tokenizer(folder, {"eos_token_id": 1}) is first


def test_take_tokenizer_reads_its_files_again_if_they_have_changed(folder):
    preload_tokenizers([folder])
    preloaded = tokenizers._preloaded[folder][1]
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "x": 1}')
    assert take_tokenizer(folder, {"eos_token_id": 1}) is not preloaded


def test_take_tokenizer_reads_its_files_again_if_its_template_has_changed(folder):
    (folder / "chat_template.jinja").write_text("one")
    first = take_tokenizer(folder, {"eos_token_id": 1})
    (folder / "chat_template.jinja").write_text("another")
    assert take_tokenizer(folder, {"eos_token_id": 1}).chat_template == "another" != first.chat_template


def test_tokenizer_gets_the_chat_template_of_the_processor(folder):
    (folder / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    assert take_tokenizer(folder, {"eos_token_id": 1}).chat_template == "{{ messages }}"


def test_chat_template_of_the_processor_does_not_replace_those_of_the_tokenizer(folder):
    """It once replaced a tokenizer's list of templates, and the one for tools was gone."""
    templates = [{"name": name, "template": f"{name} {{{{ messages }}}}"} for name in ("default", "tool_use")]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": templates}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.json").write_text('{"chat_template": "processor"}')
    template = take_tokenizer(folder, {"eos_token_id": 1}).chat_template
    assert set(template) == {"default", "tool_use"}


def test_preload_tokenizers_skips_a_damaged_folder(tmp_path):
    preload_tokenizers([tmp_path])
    assert tmp_path not in tokenizers._preloaded


def test_tokenizer_is_not_read_again_because_of_a_hidden_file(folder):
    first = take_tokenizer(folder, {"eos_token_id": 1})
    (folder / "._tokenizer.json").write_bytes(bytes(4096))
    assert take_tokenizer(folder, {"eos_token_id": 1}) is first
