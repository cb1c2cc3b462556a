"""The tokens of a prompt: which ids are allowed, and how many precede the last message."""

from typing import Any

import pytest

from mlx_server.engine.errors import EngineError, RequestError
from mlx_server.engine.generation.prompts.chat_template import RESERVED_VARIABLES
from mlx_server.engine.generation.prompts.length_check import CHUNK_CHARS
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateLimitExceeded,
    TemplateProcessDied,
)
from mlx_server.protocol import Generate


class Tokenizer:
    """Makes a token of each letter. Its template raises `error`, or repeats its text `times` times."""

    has_chat_template, has_tool_calling, chat_template = True, False, "{{ tools }}"
    bos_token: str | None = None
    bos_token_id: int | None = None

    def __init__(self, error: Exception | None = None, times: int = 1) -> None:
        self._error, self._times = error, times
        self.encoded_chars = 0

    def __len__(self) -> int:
        return 0x110000

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        self.encoded_chars += len(text)
        return [ord(letter) for letter in text]

    def apply_chat_template(self, messages: list[dict], *, add_generation_prompt: bool, **_: Any) -> str:
        if self._error:
            raise self._error
        text = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return (text + "<assistant>" * add_generation_prompt) * self._times


class Strict(Tokenizer):
    """A tokenizer whose template refuses chats without a user's message."""

    def apply_chat_template(self, messages: list[dict], **options: Any) -> str:
        if all(message["role"] != "user" for message in messages):
            raise ValueError("there is no user's message")
        return super().apply_chat_template(messages, **options)


def chat(*messages: tuple[str, str], **more: Any) -> Generate:
    all_messages = tuple({"role": role, "content": content} for role, content in messages)
    return Generate("r", "m", "chat", messages=all_messages, **more)


def maker(tokenizer: Any, token_rows: int | None = None) -> PromptMaker:
    return PromptMaker(tokenizer, None, 1000, token_rows)


def before_last_message(op: Generate, tokenizer: Any) -> str:
    prompts = maker(tokenizer)
    prompt = prompts.tokens(op)
    return "".join(map(chr, prompt[: prompts.tokens_before_last_message(op, prompt)]))


def refusal(op: Generate, tokenizer: Any, token_rows: int | None = None) -> EngineError:
    with pytest.raises(EngineError) as caught:
        maker(tokenizer, token_rows).tokens(op)
    return caught.value


def test_tokens_before_last_message_counts_the_prompt_tokens_of_all_earlier_messages():
    rules = ("system", "Be brief.")
    assert before_last_message(chat(rules, ("user", "Why?")), Tokenizer()).startswith("<system>Be brief.")
    turns = (rules, ("user", "Why?"), ("assistant", "So."), ("user", "How?"))
    before = before_last_message(chat(*turns), Tokenizer())
    assert before.startswith("<system>Be brief.<user>Why?<assistant>So.")
    assert "How?" not in before


def test_tokens_before_last_message_is_zero_for_a_lone_message_or_for_plain_text_or_if_the_template_raises():
    assert before_last_message(chat(("user", "Why?")), Tokenizer()) == ""
    refused = chat(("system", "Be brief."), ("user", "Why?"))
    assert before_last_message(refused, Strict()) == ""
    text = Generate("r", "m", "text", prompt="Why?")
    assert maker(Tokenizer()).tokens_before_last_message(text, [87]) == 0


HELLO = chat(("user", "Hello"))


def test_chat_refused_by_its_template_fails_the_request_with_the_templates_error_message():
    error = refusal(HELLO, Tokenizer(ValueError("roles must alternate")))
    assert (error.code, error.retryable) == ("invalid_request", False)
    assert str(error) == "The chat template of m refuses these messages: roles must alternate"


def test_template_error_message_that_quotes_the_whole_chat_is_shortened():
    assert len(str(refusal(HELLO, Tokenizer(ValueError("Rendered chat:\n" + "x" * 10**6))))) < 400


def test_chat_template_that_exceeds_a_limit_fails_the_request_with_an_error_that_names_the_limit():
    error = refusal(HELLO, Tokenizer(TemplateLimitExceeded("took longer than 5 s")))
    assert error.code == "invalid_request"
    assert str(error).startswith("The chat template of m took longer than 5 s and was stopped: shorten")


def test_death_of_the_process_that_renders_chat_templates_fails_the_request_with_internal_error():
    error = refusal(HELLO, Tokenizer(TemplateProcessDied("it was ended by SIGKILL")))
    assert error.code == "internal_error"
    assert "it was ended by SIGKILL" in str(error)


def test_rendered_chat_that_is_too_long_is_refused_before_it_is_tokenized_completely():
    """A tokenizer takes seconds for a megabyte, and cannot be stopped."""
    tokenizer = Tokenizer(times=10**6)
    assert refusal(HELLO, tokenizer).code == "context_exceeded"
    assert tokenizer.encoded_chars <= CHUNK_CHARS


@pytest.mark.parametrize("name", ["tools", "messages", "self", "tokenize", "conversations", "chat_template"])
def test_template_variable_named_like_a_renderers_argument_is_refused(name):
    assert name in RESERVED_VARIABLES
    error = refusal(chat(("user", "Hello"), template={name: 1}), Tokenizer())
    assert error.code == "invalid_request"
    assert repr(name) in str(error)


def test_template_variable_of_the_client_overrides_the_variable_set_by_think():
    """`reasoning_effort: none` with `enable_thinking` was once refused with the text of a Python error."""
    seen: dict[str, Any] = {}

    class Thinking(Tokenizer):
        def apply_chat_template(self, messages: list[dict], **options: Any) -> str:
            seen.update(options)
            return "text"

    maker(Thinking()).tokens(chat(("user", "Hi"), think=False, template={"enable_thinking": True}))
    assert seen["enable_thinking"] is True


def test_client_token_id_outside_the_embedding_matrix_is_refused():
    """MLX checks no index: for such a token it would read memory beyond the weights."""
    text = Generate("r", "m", "text", prompt_ids=(1, 64))
    assert "64 is not a token of this model; its ids go from 0 to 63" in str(refusal(text, Tokenizer(), 64))
    assert maker(Tokenizer(), 65).tokens(text) == [1, 64]
    assert refusal(Generate("r", "m", "text", prompt_ids=(-1,)), Tokenizer()).code == "invalid_request"


@pytest.mark.parametrize("op", [chat(("user", "é")), Generate("r", "m", "text", prompt="é")])
def test_token_from_the_tokenizer_beyond_the_embedding_matrix_is_refused(op):
    error = refusal(op, Tokenizer(), 128)
    assert error.code == "invalid_request"
    assert "token 233" in str(error) and "128 tokens only" in str(error)


def test_resumed_answer_with_a_token_id_outside_the_embedding_matrix_is_refused():
    resumed = chat(("user", "Hi"), emitted=(1, 500))
    assert "500 is not a token" in str(refusal(resumed, Tokenizer(), 128))
    assert isinstance(refusal(resumed, Tokenizer(), 128), RequestError)


@pytest.mark.parametrize("field", ["emitted", "context_ids"])
def test_answer_with_a_token_of_a_padded_embedding_row_can_be_resumed_and_continued(field):
    """Qwen 2.5 has 271 rows more than its tokenizer has tokens. A model draws such a token now and then."""
    rows = len(Tokenizer()) + 4
    padded: dict[str, Any] = {field: (1, rows - 1)}
    text = Generate("r", "m", "text", prompt="a", **padded)
    assert maker(Tokenizer(), rows).tokens(text) == [*text.context_ids, ord("a")]
    beyond: dict[str, Any] = {field: (1, rows)}
    assert f"ids go from 0 to {rows - 1}" in str(
        refusal(Generate("r", "m", "text", prompt="a", **beyond), Tokenizer(), rows)
    )


class Llama(Tokenizer):
    """Puts `^` before every text; its own template writes it."""

    bos_token, bos_token_id = "^", ord("^")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return super().encode("^" + text if add_special_tokens else text)

    def apply_chat_template(self, messages: list[dict], **options: Any) -> str:
        text = super().apply_chat_template(messages, **options)
        return f"^{text}" if options.get("chat_template") in (None, "with ^") else text


def with_template(tokenizer: Any, template: str | None) -> str:
    process: Any = object()  # the tokenizer renders without it
    prompts = PromptMaker(tokenizer, process, 1000, None)
    return "".join(map(chr, prompts.tokens(chat(("user", "Why?"), chat_template=template))))


@pytest.mark.parametrize("template", [None, "with ^", "without"])
def test_chat_prompt_begins_with_the_bos_token_once_under_any_template(template):
    """A Go template has no bos token: with a TEMPLATE, Llama and Gemma once answered nonsense."""
    assert with_template(Llama(), template) == "^<user>Why?<assistant>"


def test_chat_prompt_has_no_bos_token_if_the_tokenizer_adds_none_to_texts():
    class Smol(Llama):
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return super().encode(text, add_special_tokens=False)

    assert with_template(Smol(), "without") == "<user>Why?<assistant>"


def test_chat_of_a_model_without_a_template_is_refused_unless_the_request_has_a_template():
    """A base model in GGUF has no template, and a model that `ollama create` derives from it has one."""

    class Base(Llama):
        has_chat_template = False

    assert refusal(chat(("user", "Why?")), Base()).code == "not_a_chat_model"
    assert with_template(Base(), "without") == "^<user>Why?<assistant>"
