"""The date that a chat template writes into a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from mlx_server.protocol import Generate
from tests.component.mlx_server.engine.templates.test_same_text_as_transformers import tokenizer

TEMPLATE = "{{ strftime_now('%d %b %Y, %H:%M') }} {{ messages[0].content }}"
EVENING = datetime(2026, 11, 30, 23, 59)


class Letters:
    """A tokenizer that makes a token of each letter."""

    has_chat_template, has_tool_calling, chat_template = True, False, TEMPLATE
    bos_token: str | None = None

    def __init__(self) -> None:
        self.apply_chat_template = tokenizer(TEMPLATE).apply_chat_template

    def __len__(self) -> int:
        return 0x110000

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess()
    process.start()
    yield process
    process.close()


def prompt(process: TemplateProcess, **more: Any) -> str:
    messages = ({"role": "user", "content": "Hi"},)
    made = PromptMaker(Letters(), process, 1000).tokens(Generate("r", "m", "chat", messages=messages, **more))
    return "".join(map(chr, made))


def test_prompt_that_is_made_again_for_a_resumed_answer_has_the_date_of_its_request(process):
    """An answer that went on after midnight, in another engine, once continued another prompt."""
    assert prompt(process, created_s=EVENING.timestamp()) == "30 Nov 2026, 23:59 Hi"
    before = datetime.now().replace(second=0, microsecond=0)
    present = datetime.strptime(prompt(process).removesuffix(" Hi"), "%d %b %Y, %H:%M")
    assert before <= present <= datetime.now()
