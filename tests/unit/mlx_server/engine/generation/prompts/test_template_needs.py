"""Conversations that clients send are rendered by every chat template, however strict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.engine.generation.prompts.conversation import TemplateNeeds, fit_messages
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.template_probe import TemplateProbe
from mlx_server.engine.generation.prompts.templates.limits import TemplateLimitExceeded
from mlx_server.engine.generation.prompts.templates.renderer import make_environment
from mlx_server.engine.generation.prompts.tool_prompt import describe_tools
from mlx_server.protocol import Generate
from tests.models.model_templates import (
    ALL,
    CHATML,
    DEEPSEEK_V31,
    GEMMA,
    GPT_OSS,
    LLAMA,
    MISTRAL,
    QWEN,
    USER_LAST,
)

ENVIRONMENT = make_environment()
TOOLS = ({"type": "function", "function": {"name": "weather"}},)


class TemplateTokenizer:
    """Renders a template, and makes a token of each letter."""

    has_chat_template, has_tool_calling, bos_token = True, False, "<s>"

    def __init__(self, template: str) -> None:
        self.chat_template = template
        self._compiled = ENVIRONMENT.from_string(template)
        self.renderings = 0

    def __len__(self) -> int:
        return 0x110000

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(letter) for letter in text]

    def apply_chat_template(
        self, messages: list[dict], *, tokenize: bool, continue_final_message: bool = False, **variables: Any
    ) -> str:
        self.renderings += 1
        return self._compiled.render(messages=messages, bos_token="<s>", **variables)


MAKERS = {
    name: PromptMaker(TemplateTokenizer(template), None, 10**6).with_needs() for name, template in ALL.items()
}


def rendered(template: str, *messages: dict[str, Any], tools: tuple[dict, ...] = ()) -> str:
    maker = MAKERS[template]
    return "".join(map(chr, maker.tokens(Generate("r", "m", "chat", messages=messages, tools=tools))))


def said(role: str, content: str | list[dict[str, str]], **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def call(city: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": "weather", "arguments": {"city": city}}, **more}


@pytest.mark.parametrize(
    ("template", "needs"),
    [
        (CHATML, TemplateNeeds(plain_tools=True)),
        (
            MISTRAL,
            TemplateNeeds(
                "first",
                alternation=True,
                answer_after_tools=True,
                short_call_ids=True,
                no_stray_results=True,
            ),
        ),
        (
            USER_LAST,
            TemplateNeeds(
                "first",
                alternation=True,
                user=True,
                no_final_answer=True,
                answer_after_tools=True,
                short_call_ids=True,
                no_stray_results=True,
            ),
        ),
        (GEMMA, TemplateNeeds("nowhere", alternation=True, plain_tools=True)),
        (QWEN, TemplateNeeds("first", user=True)),
        (LLAMA, TemplateNeeds(single_calls=True)),
        (
            GPT_OSS,
            TemplateNeeds(
                "first",
                single_calls=True,
                whole_tools=True,
                one_text=True,
                no_headers=True,
                no_stray_results=True,
            ),
        ),
        (DEEPSEEK_V31, TemplateNeeds("first", argument_texts=True)),
    ],
    ids=["chatml", "mistral", "user-last", "gemma", "qwen", "llama", "gpt-oss", "deepseek-v3.1"],
)
def test_template_probe_finds_which_message_forms_each_model_familys_template_requires(template, needs):
    assert PromptMaker(TemplateTokenizer(template), None, 1000).with_needs().needs == needs


def test_template_probe_that_renders_nothing_or_exceeds_limits_returns_the_default_needs():
    def refuse(messages: list, tools: list | None) -> str:
        raise ValueError("never")

    calls = []

    def take_long(messages: list, tools: list | None) -> str:
        calls.append(messages)
        raise TemplateLimitExceeded("took longer than 5 s")

    assert TemplateProbe(refuse).needs(uses_tools=True) == TemplateNeeds()
    assert TemplateProbe(take_long).needs(uses_tools=True) == TemplateNeeds()
    assert len(calls) == 1, "each probe would take as long"


@pytest.mark.parametrize("template", ALL)
def test_system_message_in_mid_conversation_is_rendered_between_its_neighbors_by_every_template(template):
    """Claude Code sends such messages; moved to the front they would empty the prompt cache at each turn."""
    turns = (said("user", "One"), said("assistant", "Two"), said("system", "Brief"), said("user", "Three"))
    text = rendered(template, *turns)
    assert text.index("One") < text.index("Two") < text.index("Brief") < text.index("Three")
    assert rendered(template, *turns[:2], said("user", "Other")).startswith(text[: text.index("Two")])


def test_system_message_in_mid_conversation_is_unchanged_if_the_template_renders_it():
    turns = [said("user", "One"), said("system", "Brief"), said("user", "Two")]
    assert fit_messages(turns, MAKERS["chatml"].needs) == turns
    assert "<|im_start|>system\nBrief<|im_end|>" in rendered("chatml", *turns)


@pytest.mark.parametrize("template", ALL)
def test_system_message_alone_or_at_the_end_is_rendered_by_every_template(template):
    assert "Brief" in rendered(template, said("system", "Brief"))
    assert "Brief" in rendered(template, said("user", "Hi"), said("system", "Brief"))


def test_mistral_tool_call_ids_become_nine_characters_and_results_still_match_their_calls():
    """Vestal's ids are longer, and Ollama's history has none: both were once refused with 400."""
    ours = [call("Oslo", id="call_0123456789abcdef_0"), call("Rome", id="call_0123456789abcdef_1")]
    results = [said("tool", f'"{i}"', tool_call_id=ours[i]["id"]) for i in (1, 0)]
    asked = said("assistant", "", tool_calls=ours)
    (system, made, first, second) = fit_messages(
        [said("user", "Hi"), asked, *results], MAKERS["mistral"].needs
    )
    ids = [made["id"] for made in made["tool_calls"]]
    assert all(len(made) == 9 and made.isalnum() for made in ids) and len(set(ids)) == 2
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    nameless = said("assistant", "", tool_calls=[call("Oslo"), call("Rome")])
    text = rendered(
        "mistral", said("user", "Hi"), nameless, said("tool", "1"), said("tool", "2"), tools=TOOLS
    )
    assert text == rendered(
        "mistral", said("user", "Hi"), nameless, said("tool", "1"), said("tool", "2"), tools=TOOLS
    )
    assert text.count("[TOOL_RESULTS]") == 2


def test_mistral_tool_call_id_of_nine_characters_is_unchanged():
    turns = (said("user", "Hi"), said("assistant", "", tool_calls=[call("Oslo", id="abcDEF123")]))
    assert '"id": "abcDEF123"' in rendered(
        "mistral", *turns, said("tool", "5", tool_call_id="abcDEF123"), tools=TOOLS
    )


@pytest.mark.parametrize("template", ["gpt-oss", "llama"])
def test_two_tool_calls_of_one_message_are_each_rendered_before_their_own_result(template):
    """gpt-oss' template renders only the first call, and takes the second result for the first call's."""
    asked = said("assistant", "", tool_calls=[call("Oslo", id="a"), call("Rome", id="b")])
    results = (said("tool", "rain", tool_call_id="b"), said("tool", "sun", tool_call_id="a"))
    text = rendered(template, said("user", "Hi"), asked, *results, tools=TOOLS)
    assert text.index("Oslo") < text.index("sun") < text.index("Rome") < text.index("rain")


def test_thinking_in_reasoning_content_is_rendered_by_a_template_that_reads_another_field():
    """gpt-oss reads `thinking`, others read `reasoning_content`, which is what the gateway sends."""
    asked = said("assistant", "", tool_calls=[call("Oslo")], reasoning_content="Look it up.")
    turns = (said("user", "Hi"), asked, said("tool", "rain"))
    assert "analysis<|message|>Look it up.<|end|>" in rendered("gpt-oss", *turns, tools=TOOLS)
    both = (said("user", "Hi"), asked | {"content": "A moment."}, said("tool", "rain"))
    assert "Look it up.\n\nA moment.<|end|>" in rendered("gpt-oss", *both, tools=TOOLS)


def test_past_answer_sent_back_with_harmony_headers_is_rendered_without_them():
    """Some servers show Harmony headers, so clients send them back; gpt-oss' template refuses them."""
    raw = (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    )
    text = rendered("gpt-oss", said("user", "Hi"), said("assistant", raw), said("user", "So?"))
    assert "<|channel|>final<|message|>Yes.<|end|>" in text and "Hm." not in text


def test_tool_without_description_is_rendered_by_a_template_that_reads_descriptions():
    assert "type weather" in rendered("gpt-oss", said("user", "Hi"), tools=TOOLS)


def test_user_message_that_directly_follows_a_tool_result_appears_in_the_prompt():
    """Claude Code sends tool results and the user's text in one message."""
    turns = (said("user", "Hi"), said("assistant", "", tool_calls=[call("Oslo")]), said("tool", "5"))
    assert "[TOOL_RESULTS]" in (text := rendered("mistral", *turns, said("user", "And now?"), tools=TOOLS))
    assert text.endswith("[INST]And now?[/INST]")


def test_chat_with_an_empty_assistant_message_is_accepted_although_the_template_requires_content():
    """An answer that was cancelled before its first token stands in the history of a client."""
    text = rendered("ministral", said("user", "Hi"), said("assistant", ""), said("user", "And now?"))
    assert text.endswith("[INST]And now?[/INST]")
    calls = (said("user", "Hi"), said("assistant", "", tool_calls=[call("Oslo")]), said("tool", "5"))
    assert rendered("ministral", *calls, said("user", "So?"), tools=TOOLS).endswith("[INST]So?[/INST]")


def test_tool_call_that_the_template_omits_is_rendered_as_text_in_the_models_markers():
    """Granite's and LFM2's templates render tools and results, but no tool calls."""
    maker = PromptMaker(TemplateTokenizer(ALL["granite"]), None, 10**6, call_markers=("<|tool_call|>", ""))
    turns = (said("user", "Hi"), said("assistant", "", tool_calls=[call("Oslo")]), said("tool", "5"))
    text = "".join(
        map(chr, maker.with_needs().tokens(Generate("r", "m", "chat", messages=turns, tools=TOOLS)))
    )
    assert '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|end_of_text|>' in text
    assert "available_tools" in text and "<|start_of_role|>tool<|end_of_role|>5" in text


def test_empty_assistant_message_at_the_end_of_a_chat_is_rendered_as_the_start_of_the_answer():
    turns = (said("user", "Hi"), said("assistant", ""))
    assert rendered("gemma", *turns).endswith("<start_of_turn>model\n")


@pytest.mark.parametrize(
    "content", ["Hello, my ", [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "my "}]]
)
def test_begun_answer_is_continued_although_the_template_wants_a_user_message_last(content):
    """It was a 400 ("Expected last role User or Tool")."""
    turns = (said("system", "Brief"), said("user", "Hi"), said("assistant", content))
    assert rendered("user-last", *turns).endswith("[INST]Hi[/INST]Hello, my ")
    tools = rendered("user-last", *turns, tools=TOOLS)
    assert "weather" in tools and tools.endswith("[INST]Hi[/INST]Hello, my ")


def test_begun_answer_in_several_messages_is_continued_as_one():
    turns = (said("user", "Hi"), said("assistant", "One"), said("assistant", "Two"))
    assert rendered("user-last", *turns).endswith("[INST]Hi[/INST]One\n\nTwo")


def test_begun_answer_without_any_other_message_is_continued():
    assert rendered("user-last", said("assistant", "Hello, my")).endswith("[INST][/INST]Hello, my")


def test_begun_answer_after_a_tool_result_is_continued():
    turns = (said("user", "Hi"), said("assistant", "", tool_calls=[call("Oslo")]), said("tool", "5"))
    text = rendered("user-last", *turns, said("assistant", "It is"), tools=TOOLS)
    assert text.endswith("[/TOOL_RESULTS]It is")


def test_calls_at_the_end_of_a_chat_get_empty_results_if_the_template_wants_a_result_last():
    calls = [call("Oslo", id="a"), call("Rome")]
    text = rendered("user-last", said("user", "Hi"), said("assistant", "", tool_calls=calls), tools=TOOLS)
    assert "Oslo" in text and text.count('[TOOL_RESULTS] {"content": , "call_id": "') == 2


def test_thinking_of_a_begun_answer_is_rendered_where_the_prompt_begins_the_thinking():
    """The text of the answer would otherwise be taken for thinking."""
    thinking = USER_LAST + "{% if add_generation_prompt %}<think>\n{% endif %}"
    maker = PromptMaker(TemplateTokenizer(thinking), None, 10**6).with_needs()

    def ending(**last: Any) -> str:
        messages = (said("user", "Hi"), said("assistant", **last))
        text = "".join(map(chr, maker.tokens(Generate("r", "m", "chat", messages=messages))))
        return text.rpartition("[/INST]")[2]

    assert ending(content="Yes") == "<think>\n\n</think>\n\nYes"
    assert ending(content="Yes", reasoning_content="Hm") == "<think>\nHm\n</think>\n\nYes"
    assert ending(content="", reasoning_content="Hm") == "<think>\nHm"
    turns = (said("user", "Hi"), said("assistant", "Yes", reasoning_content="Hm"))
    assert rendered("user-last", *turns).endswith("[INST]Hi[/INST]Yes"), "the prompt begins no thinking"


def test_begun_answer_that_the_template_unexpectedly_refuses_is_continued_all_the_same():
    """No probe shows that this template objects to a word."""
    template = CHATML.replace(
        "{{ m.content }}",
        "{{ m.content }}{% if m.role == 'assistant' and 'x' in m.content %}"
        "{{ raise_exception('no x') }}{% endif %}",
    )
    maker = PromptMaker(TemplateTokenizer(template), None, 10**6).with_needs()
    assert not maker.needs.no_final_answer
    refused = Generate("r", "m", "chat", messages=(said("user", "Hi"), said("assistant", "x")))
    assert "".join(map(chr, maker.tokens(refused))).endswith("Hi<|im_end|>\n<|im_start|>assistant\nx")


def test_tokens_before_the_last_message_are_counted_although_the_template_wants_a_user_message_last():
    """Each turn of such a model would otherwise have stored no snapshot for other chats."""
    messages = (said("user", "Hi"), said("assistant", "Yes"), said("user", "So?"))
    for chat, common in ((messages, "<s>[INST]Hi[/INST]Yes</s>[INST]"), (messages[:2], "<s>[INST]Hi[/INST]")):
        op = Generate("r", "m", "chat", messages=chat)
        maker = MAKERS["user-last"]
        assert maker.tokens_before_last_message(op, maker.tokens(op)) == len(common)


def test_text_parts_of_a_message_that_is_merged_with_other_text_appear_in_the_prompt():
    parts = [{"type": "text", "text": "Be brief"}]
    turns = (said("system", parts), said("user", "Hi"), said("assistant", parts, tool_calls=[call("Oslo")]))
    assert "Be brief" in rendered("gemma", *turns, tools=TOOLS)


def test_tool_calls_become_text_if_the_template_has_no_place_for_them():
    turns = (said("user", "Hi"), said("assistant", "", tool_calls=[call("Oslo")]), said("tool", "5"))
    text = rendered("gemma", *turns)
    assert '"city": "Oslo"' in text and "<tool_response>\n5" in text


@pytest.mark.parametrize("template", ["gpt-oss", "mistral"])
def test_tool_result_without_a_call_becomes_text_if_the_template_refuses_it(template):
    """A client that shortens its history may keep a tool result without its call."""
    turns = (said("user", "Hi"), said("assistant", "Yes?"), said("tool", "stray"), said("user", "So?"))
    assert "<tool_response>\nstray" in rendered(template, *turns, tools=TOOLS)


def test_system_message_stays_before_the_first_turn_although_the_template_would_move_it():
    """Mistral Nemo's template puts it before the user's last message: each turn lost the prompt cache."""
    first = (said("system", "Brief"), said("user", "One"))
    text = rendered("nemo", *first)
    assert rendered("nemo", *first, said("assistant", "Two"), said("user", "Three")).startswith(text)
    assert text.count("Brief") == 1


def test_system_message_that_the_template_unexpectedly_refuses_is_rendered_inside_the_user_message():
    """No probe shows that this template objects to a word."""
    template = CHATML.replace(
        "{{ m.content }}",
        "{{ m.content }}{% if m.role == 'system' and 'x' in m.content %}"
        "{{ raise_exception('no x') }}{% endif %}",
    )
    maker = PromptMaker(TemplateTokenizer(template), None, 10**6).with_needs()
    assert maker.needs.system == "anywhere"
    refused = Generate("r", "m", "chat", messages=(said("system", "x"), said("user", "Hi")))
    assert "".join(map(chr, maker.tokens(refused))).startswith("<|im_start|>user\nx\n\nHi")


ROLES = st.sampled_from(["system", "user", "assistant", "tool", "call", "calls"])


@given(st.lists(ROLES, min_size=1, max_size=7), st.booleans(), st.sampled_from(sorted(ALL)))
def test_messages_in_any_order_of_roles_are_rendered_without_losing_content(roles, offers_tools, template):
    messages = []
    for i, role in enumerate(roles):
        calls = [call(f"<{i}.{n}>") for n in range({"call": 1, "calls": 2}.get(role, 0))]
        spoken = said("assistant" if calls else role, "" if calls else f"<{i}>")
        messages.append({**spoken, "tool_calls": calls} if calls else spoken)
    before = json.dumps(messages)
    text = rendered(template, *messages, tools=TOOLS if offers_tools else ())
    assert all(message["content"] in text for message in messages)
    assert all(f"<{i}.0>" in text for i, role in enumerate(roles) if role in ("call", "calls"))
    assert json.dumps(messages) == before


SMOLVLM = (
    "{% for m in messages %}{{ m['role'] }}:{% for part in m['content'] %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}|{% endfor %}"
)


def test_template_that_loops_over_content_parts_gets_every_text_as_a_part():
    """SmolVLM's and Idefics' templates render nothing if the content of a message is a string."""
    maker = PromptMaker(TemplateTokenizer(SMOLVLM), None, 10**6).with_needs()
    assert maker.needs.text_parts
    messages = (
        said("system", "Be brief."),
        said("user", "Hello"),
        said("assistant", "Yes?"),
        said("user", "Go"),
    )
    text = "".join(map(chr, maker.tokens(Generate("r", "m", "chat", messages=messages))))
    assert text == "system:Be brief.|user:Hello|assistant:Yes?|user:Go|"
    assert not any(other.needs.text_parts for other in MAKERS.values())


def test_image_in_a_tool_result_is_kept_when_the_result_becomes_a_user_message():
    image = {"type": "image", "index": 0}
    message = {"role": "tool", "content": [{"type": "text", "text": "A plot:"}, image]}
    (shaped,) = describe_tools([message], [])
    assert shaped["role"] == "user"
    assert image in shaped["content"]
