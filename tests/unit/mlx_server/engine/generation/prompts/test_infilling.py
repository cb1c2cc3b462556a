"""The prompt for filling a gap, for each family of models that supports it."""

from __future__ import annotations

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.protocol import Generate

FAMILIES = {
    "qwen-coder": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
    "starcoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"),
    "codellama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    "deepseek": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜end▁of▁sentence｜>"),
}
SPECIAL = 0x100000
"""The ids of special tokens begin here; those below are letters."""


class Tokenizer:
    """Makes a token of each letter, and has the special tokens that it is given."""

    def __init__(self, *special: str, bos: str | None = None, unknown: int | None = None) -> None:
        self._names = dict(enumerate(special, start=SPECIAL))
        self._ids = {name: number for number, name in self._names.items()}
        self._unknown = unknown
        self.bos_token, self.bos_token_id = bos, None if bos is None else ord(bos)

    def __len__(self) -> int:
        return 0x110000

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in (self.bos_token or "") * add_special_tokens + text]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        return self._ids.get(token, self._unknown)

    def convert_ids_to_tokens(self, number: int) -> str:
        return self._names.get(number, chr(number))


def prompt(tokenizer: Tokenizer, before: str, after: str) -> list[str]:
    op = Generate("r", "m", "text", prompt=before, suffix=after)
    return [tokenizer.convert_ids_to_tokens(n) for n in PromptMaker(tokenizer, None, 1000).tokens(op)]


@pytest.mark.parametrize("family", FAMILIES)
def test_infill_prompt_marks_prefix_and_suffix_with_the_models_tokens(family):
    first, second, third, end = FAMILIES[family]
    tokenizer = Tokenizer(*FAMILIES[family])
    assert prompt(tokenizer, "ab", "cd") == [first, "a", "b", second, "c", "d", third]
    assert prompt(tokenizer, "", "c") == [first, second, "c", third]
    ends = PromptMaker(tokenizer, None, 1000).infill_ends
    assert [tokenizer.convert_ids_to_tokens(n) for n in ends] == [end]


def test_infill_prompt_begins_with_the_models_start_token():
    assert prompt(Tokenizer(*FAMILIES["codellama"], bos="^"), "a", "b")[:2] == ["^", "▁<PRE>"]


def test_infill_prompt_of_codestral_has_the_suffix_first():
    assert prompt(Tokenizer("[SUFFIX]", "[PREFIX]"), "a", "b") == ["[SUFFIX]", "b", "[PREFIX]", "a"]


@pytest.mark.parametrize("special", [(), ("<|fim_prefix|>", "<|fim_suffix|>")])
@pytest.mark.parametrize("unknown", [None, 0])
def test_infill_prompt_for_a_model_without_infill_tokens_is_refused_with_ollamas_message(special, unknown):
    with pytest.raises(RequestError, match="does not support insert") as caught:
        prompt(Tokenizer(*special, unknown=unknown), "a", "b")
    assert caught.value.code == "invalid_request"
