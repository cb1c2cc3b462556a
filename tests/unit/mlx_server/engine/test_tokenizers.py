"""What a spare read ahead is used once, and only for the files it was read from."""

from __future__ import annotations

import json

import pytest

from mlx_server.engine.models import tokenizers
from mlx_server.engine.models.tokenizers import read_ahead, tokenizer_of


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "eos_token_id": 1}))
    vocab = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "model": vocab})
    )
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return tmp_path


def test_tokenizer_that_was_read_ahead_is_used_once(folder):
    read_ahead([folder])
    ahead = tokenizers._ahead[folder][1]
    assert tokenizer_of(folder, {"eos_token_id": 1}) is ahead
    assert tokenizer_of(folder, {"eos_token_id": 1}) is not ahead
    assert set(ahead.eos_token_ids) == {1}


def test_tokenizer_when_its_files_have_changed_is_read_again(folder):
    read_ahead([folder])
    ahead = tokenizers._ahead[folder][1]
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "x": 1}')
    assert tokenizer_of(folder, {"eos_token_id": 1}) is not ahead


def test_read_ahead_of_broken_folder_leaves_it_to_the_load(tmp_path):
    read_ahead([tmp_path])
    assert tmp_path not in tokenizers._ahead
