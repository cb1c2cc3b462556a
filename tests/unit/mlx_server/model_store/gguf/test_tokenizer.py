"""Tokenizers that are rebuilt from a GGUF file's metadata."""

from __future__ import annotations

import io
import json
import random

import pytest
import sentencepiece
from tokenizers import Tokenizer

from mlx_server.model_store.gguf.byte_level import SPLITTINGS
from mlx_server.model_store.gguf.config import end_tokens
from mlx_server.model_store.gguf.tokenizer import tokenizer_config, tokenizer_json
from mlx_server.model_store.gguf.tokenizer_check import PROBES
from tests.unit.mlx_server.model_store.gguf.gguf_files import BYTE_LEVEL, BYTES

METADATA = BYTE_LEVEL | {"general.architecture": "llama", "llama.context_length": 8192}


def rebuilt(metadata):
    return Tokenizer.from_str(json.dumps(tokenizer_json(metadata)))


def test_smollm_tokenizer_from_gguf_splits_digits_and_keeps_special_tokens():
    tokenizer = rebuilt(METADATA | {"tokenizer.ggml.pre": "smollm"})
    assert tokenizer.encode("ab 12<|im_end|>").tokens == ["ab", "Ġ", "1", "2", "<|im_end|>"]
    assert tokenizer.encode(" ab").tokens == ["Ġab"]


@pytest.mark.parametrize(
    ("rule", "text", "words"),
    [
        ("gpt-2", "I'LL pay 1234 now\n\n  x", ["I", "'", "LL", " pay", " 1234", " now", "\n\n ", " x"]),
        (
            "llama-bpe",
            "I'LL pay 1234 now\n\n  x",
            ["I", "'LL", " pay", " ", "123", "4", " now", "\n\n", " ", " x"],
        ),
        ("qwen2", "a 12.\n\nB", ["a", " ", "1", "2", ".\n\n", "B"]),
        ("tekken", "camelCase ABc", ["camel", "Case", " ABc"]),
        ("gpt-4o", "it's 1234/\n", ["it's", " ", "123", "4", "/\n"]),
        ("deepseek-coder", "x = 12\n", ["x", " = ", "1", "2", "\n"]),
        ("deepseek-v3", "_name 1234 中文a", ["_name", " ", "123", "4", " ", "中文", "a"]),
    ],
)
def test_tokenizer_from_gguf_splits_a_text_by_the_rule_that_the_file_names(rule, text, words):
    """The expected words come from llama.cpp's tests of its vocabularies (`ggml-vocab-*.gguf.out`)."""
    pre_tokenizer = rebuilt(METADATA | {"tokenizer.ggml.pre": rule}).pre_tokenizer
    spans = [span for _, span in pre_tokenizer.pre_tokenize_str(text)]
    assert [text[start:end] for start, end in spans] == words


@pytest.mark.parametrize("rule", SPLITTINGS)
def test_tokenizer_from_gguf_reproduces_every_text_under_every_splitting_rule(rule):
    tokenizer = rebuilt(METADATA | {"tokenizer.ggml.pre": rule})
    for text in PROBES:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_tokenizer_from_gguf_does_not_read_a_user_defined_character_as_a_byte():
    """DeepSeek's first vocabularies have tokens such as 'ö', which were once decoded as the byte 0xF6."""
    tokens, types = [*METADATA["tokenizer.ggml.tokens"]], [*METADATA["tokenizer.ggml.token_type"]]
    types[tokens.index("ö")] = 4
    tokenizer = rebuilt(METADATA | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    ids = tokenizer.encode("schön").ids
    assert len(ids) == 5
    assert tokenizer.decode(ids) == "schön"


@pytest.mark.parametrize(
    ("rule", "stated", "first"),
    [("llama-bpe", None, True), ("llama-bpe", False, False), ("qwen2", None, False), ("qwen2", True, True)],
)
def test_tokenizer_from_gguf_adds_a_bos_token_as_the_file_says_or_else_as_its_splitting_rule_does(
    rule, stated, first
):
    more = {} if stated is None else {"tokenizer.ggml.add_bos_token": stated}
    tokenizer = rebuilt(METADATA | {"tokenizer.ggml.pre": rule} | more)
    assert tokenizer.encode("ab").tokens == (["<|im_start|>", "ab"] if first else ["ab"])
    assert tokenizer.encode("ab", add_special_tokens=False).tokens == ["ab"]


def test_gguf_end_tokens_are_the_one_in_the_metadata_followed_by_known_end_tokens():
    assert end_tokens(METADATA) == [2, 0]


def test_gguf_end_tokens_do_not_contain_gemmas_token_for_an_html_tag():
    """Gemma's tokens for HTML include '</s>', the end of a struck-out text: no answer ends there."""
    assert end_tokens({"tokenizer.ggml.tokens": ["<eos>", "</s>"], "tokenizer.ggml.token_type": [3, 4]}) == [
        0
    ]


def test_tokenizer_config_from_gguf_has_special_tokens_and_the_chat_template():
    config = tokenizer_config(METADATA)
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert config["chat_template"] == "{{ messages }}"
    assert config["model_max_length"] == 8192


@pytest.fixture(scope="module")
def pieces():
    """Return a SentencePiece model, trained on random words, and the metadata that a GGUF file has of it."""
    generator = random.Random(3)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(1, 7))) for _ in range(300)]
    lines = [" ".join(generator.choices(words, k=8)) for _ in range(400)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, vocab_size=500, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    ids = range(model.get_piece_size())
    kinds = [
        2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in ids
    ]
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [model.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        "tokenizer.ggml.unknown_token_id": model.unk_id(),
    }
    return model, metadata, lines


def test_sentencepiece_tokenizer_from_gguf_gives_the_tokens_of_sentencepiece(pieces):
    model, metadata, lines = pieces
    tokenizer = rebuilt(metadata)
    for text in [*lines[:50], *PROBES, "  two  spaces ", "\n\n", "x"]:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == model.encode(text), text
        assert tokenizer.decode(ids) == text


def test_sentencepiece_tokenizer_from_gguf_adds_bos_and_eos_tokens_as_the_file_says(pieces):
    _, metadata, _ = pieces
    assert rebuilt(metadata).encode("a").tokens[0] == "<s>"
    assert rebuilt(metadata | {"tokenizer.ggml.add_bos_token": False}).encode("a").tokens[0] != "<s>"
    assert rebuilt(metadata | {"tokenizer.ggml.add_eos_token": True}).encode("a").tokens[-1] == "</s>"


def test_sentencepiece_tokenizer_adds_no_leading_space_if_its_gguf_metadata_turns_it_off(pieces):
    """Gemma's tokenizer does not put a space before a text."""
    _, metadata, _ = pieces
    tokenizer = rebuilt(metadata | {"tokenizer.ggml.add_space_prefix": False})
    for text in ("the", " the", "  the"):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text
    assert not tokenizer.encode("the", add_special_tokens=False).tokens[0].startswith("▁")


def test_white_space_after_phi_3_control_tokens_is_merged_into_them(pieces):
    """Phi 3's template writes a line break after `<|user|>` that the model has never seen as a token."""
    _, metadata, _ = pieces
    tokens = [*metadata["tokenizer.ggml.tokens"], "<|user|>"]
    more = {
        "general.architecture": "phi3",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [*metadata["tokenizer.ggml.scores"], -1000.0],
        "tokenizer.ggml.token_type": [*metadata["tokenizer.ggml.token_type"], 3],
        "tokenizer.ggml.add_bos_token": False,
    }
    with_break = rebuilt(metadata | more).encode("<|user|>\nthe").ids
    assert with_break == rebuilt(metadata | more).encode("<|user|>the").ids
    assert with_break[0] == len(tokens) - 1


def test_byte_vocabulary_of_gguf_tokenizers_has_256_different_entries():
    assert len(BYTES) == len(set(BYTES)) == 256
