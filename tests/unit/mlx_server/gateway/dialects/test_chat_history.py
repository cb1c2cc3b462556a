"""The roles, thoughts, volatile headers and unreadable parts of messages mean the same in every dialect."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from mlx_server.gateway.dialects.anthropic.schema import CountBody, MessagesBody
from mlx_server.gateway.dialects.bodies import Body, validated
from mlx_server.gateway.dialects.chat.history import chat_history, without_volatile_headers
from mlx_server.gateway.dialects.ollama import schema as ollama
from mlx_server.gateway.dialects.openai import schema as openai
from mlx_server.gateway.dialects.responses import creation
from mlx_server.gateway.dialects.responses.schema import CreateBody
from mlx_server.gateway.errors import BadRequest

HEADER = "x-anthropic-billing-header: cc_version=2.1.197.a1b; cc_entrypoint=cli; cch=a1b00;"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}
IMAGE_URL = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
DIALECTS: dict[str, type[Body]] = {
    "ollama": ollama.ChatBody,
    "openai": openai.ChatBody,
    "anthropic": MessagesBody,
    "anthropic count": CountBody,
    "responses": CreateBody,
}


def messages_of(dialect: str, messages: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Return the messages that the chat template is given, with content only if that matters."""
    body = validated(
        {"model": "m", "max_tokens": 5, "messages": messages, "input": messages, **more}, DIALECTS[dialect]
    )
    match body:
        case openai.ChatBody():
            request = body.to_requests("m", 1)[0]
        case CreateBody():
            request = creation.translate(body, "m", 1).request
        case MessagesBody() | ollama.ChatBody():
            request = body.to_request("m", 1)
        case CountBody():
            request = body.to_count("m")
    return list(request.messages or ())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("USER", "user"),
        ("User", "user"),
        ("System", "system"),
        ("developer", "system"),
        ("Developer", "system"),
        ("function", "tool"),
        ("control", "user"),
        ("", "user"),
    ],
)
def test_chat_role_in_any_case_or_under_an_old_name_becomes_a_role_of_the_template(dialect, role, expected):
    """langchain4j and Spring AI write USER, OpenAI's newer clients developer, its older ones function.

    An unknown role (Granite's control) is read as the user's.
    """
    first, second = messages_of(dialect, [{"role": role, "content": "a"}, user("b")])
    assert (first["role"], first["content"], second["role"]) == (expected, "a", "user")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("role", [[], 3, None])
def test_chat_role_that_is_not_text_is_refused_with_an_error_that_names_the_role_field(dialect, role):
    with pytest.raises(BadRequest, match="role"):
        messages_of(dialect, [{"role": role, "content": "a"}])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_message_with_role_thinking_becomes_the_thinking_of_the_following_answer(dialect):
    """Continue keeps a model's thoughts as a message of their own: role `thinking`, then `assistant`."""
    messages = [
        user("a"),
        {"role": "thinking", "content": "hm"},
        {"role": "assistant", "content": "b"},
        {"role": "thinking", "content": "lost"},
        user("c"),
    ]
    found = messages_of(dialect, messages)
    assert [(m["role"], m["content"], m.get("reasoning_content")) for m in found] == [
        ("user", "a", None),
        ("assistant", "b", "hm"),
        ("user", "c", None),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_system_message_in_mid_conversation_stays_in_place(dialect):
    """Claude Code puts its list of agents after the first question; moved up, it would empty the cache."""
    found = messages_of(dialect, [user("a"), {"role": "system", "content": "Agents: none"}, user("b")])
    assert [m["role"] for m in found] == ["user", "system", "user"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_billing_header_line_that_changes_with_each_request_is_removed_from_the_system_prompt(dialect):
    system = {"role": "system", "content": f"{HEADER}\nBe short."}
    assert messages_of(dialect, [system, user("a")])[0] == {"role": "system", "content": "Be short."}
    assert [m["role"] for m in messages_of(dialect, [system | {"content": HEADER}, user("a")])] == ["user"]


def test_volatile_header_block_is_removed_from_every_form_of_the_system_prompt():
    """Claude Code sends the header as the first system block; a proxy may pass the blocks on as parts."""
    blocks = [{"type": "text", "text": HEADER}, {"type": "text", "text": "Be short."}]
    expected = [{"role": "system", "content": "Be short."}, user("a")]
    assert messages_of("anthropic", [user("a")], system=blocks) == expected
    assert messages_of("anthropic count", [user("a")], system=blocks) == expected
    assert messages_of("openai", [{"role": "system", "content": blocks}, user("a")]) == expected
    assert messages_of("anthropic", [user("a")], system=[blocks[0]]) == [user("a")]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (HEADER, ""),
        (f"\n {HEADER}\nX-Anthropic-Other: 1\r\nBe short.", "Be short."),
        (f"Be short.\n{HEADER}", f"Be short.\n{HEADER}"),
        ("x-forwarded-for: what does it mean?", "x-forwarded-for: what does it mean?"),
        ("", ""),
    ],
)
def test_only_anthropic_header_lines_at_the_beginning_of_a_system_prompt_are_removed(text, kept):
    assert without_volatile_headers(text) == kept


def test_user_message_that_quotes_a_billing_header_line_is_unchanged():
    assert chat_history([user(HEADER)]) == (user(HEADER),)


# --- parts that a text model cannot read ---


def test_image_in_a_tool_result_for_a_text_model_is_replaced_by_a_note_that_an_image_was_there():
    """Claude Code reads images with a tool: a refusal would end the conversation at every later turn."""
    use = {"type": "tool_use", "id": "a", "name": "Read", "input": {"p": "x.png"}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "x:"}, IMAGE]}
    found = messages_of("anthropic", [user("look"), {"role": "assistant", "content": [use]}, user([result])])
    assert found[2]["role"] == "tool"
    assert found[2]["content"].startswith("x:\n[There was a part of type image here")
    tool = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x:"}, IMAGE_URL]}
    assert "part of type image_url" in messages_of("openai", [user("look"), tool])[1]["content"]


@pytest.mark.parametrize(("dialect", "image"), [("anthropic", IMAGE), ("openai", IMAGE_URL)])
def test_image_for_a_text_model_is_refused_in_the_last_turn_and_replaced_by_a_note_in_earlier_turns(
    dialect, image
):
    question = user([image, {"type": "text", "text": "What is it?"}])
    with pytest.raises(BadRequest, match="text only"):
        messages_of(dialect, [user("hi"), question])
    with pytest.raises(BadRequest, match="text only"):  # as Claude Code orders them
        messages_of(dialect, [question, {"role": "system", "content": "Agents: none"}])
    earlier = messages_of(dialect, [question, user("Never mind. Name a color.")])[0]
    assert "cannot read" in earlier["content"] and "What is it?" in earlier["content"]


def test_text_of_an_anthropic_document_becomes_message_text_and_a_pdf_is_refused():
    raw = base64.b64encode(b"a,b\n1,2").decode()
    sources: list[dict[str, Any]] = [
        {"type": "text", "media_type": "text/plain", "data": "a,b\n1,2"},
        {"type": "base64", "media_type": "text/csv", "data": raw},
        {"type": "content", "content": [{"type": "text", "text": "a,b\n1,2"}]},
    ]
    for source in sources:
        block = {"type": "document", "source": source, "title": "t.csv"}
        assert messages_of("anthropic", [user([block])])[0]["content"] == "\n[The file t.csv:]\na,b\n1,2\n"
    part = {"type": "file", "file": {"filename": "t.csv", "file_data": f"data:text/csv;base64,{raw}"}}
    assert messages_of("openai", [user([part])])[0]["content"] == "\n[The file t.csv:]\na,b\n1,2\n"
    pdf = {"type": "document", "source": {"type": "base64", "data": base64.b64encode(b"%PDF-1").decode()}}
    with pytest.raises(BadRequest, match="document"):
        messages_of("anthropic", [user([pdf])])


def test_failed_tool_result_is_prefixed_with_error_unless_its_text_already_says_so():
    def read(text: str) -> str:
        block = {"type": "tool_result", "tool_use_id": "a", "content": text, "is_error": True}
        return messages_of("anthropic", [user([block])])[0]["content"]

    assert read("no such file") == "Error: no such file"
    assert read("<tool_use_error>x</tool_use_error>") == "<tool_use_error>x</tool_use_error>"
