"""The page's chat: an answer is streamed as text, and survives a killed engine and broken connections."""

from __future__ import annotations

import base64

import pytest
from playwright.sync_api import FilePayload, expect

from tests.component.host_agent.page import section_answers as answers
from tests.component.host_agent.page.section_helpers import (
    DONE,
    FedStream,
    bodies,
    confirm,
    said,
    wait_for,
    wait_for_request,
)

CHAT = ("POST", "/gateway/api/chat")
KILL = ("POST", "/services/mlx_engine/kill")


@pytest.fixture
def stream(scripted):
    """A streamed response, with the request id `abc`, to the chat's next request."""
    scripted.answers |= answers.usual_models()
    scripted.answers[KILL] = {"service": "mlx_engine", "action": "kill", "state": "accepted"}
    scripted.answers[CHAT] = fed = FedStream(**{"X-Request-Id": "abc"})
    return fed


def ask(page, text="Tell me about herons."):
    expect(page.get_by_label("Model")).to_have_value("qwen3.5:9b")
    # A message is not sent before the stream of the last answer has ended, a moment after its last line.
    expect(page.get_by_label("Model")).to_be_enabled()
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_label("Message", exact=True).press("Enter")


def answer(page):
    return page.get_by_role("article", name="Answer of qwen3.5:9b").last


def test_chat_page_streams_the_answer_as_text_with_the_thinking_collapsed(open_page, scripted, stream):
    page = open_page("#chat")
    expect(page.get_by_label("Model").locator("option")).to_have_count(3)  # the embedding model cannot chat
    ask(page)
    stream.feed(said(thinking="A bird."), said("Herons "), said(answers.HOSTILE))
    expect(answer(page)).to_contain_text(f"Herons {answers.HOSTILE}")
    expect(page.get_by_text("A bird.")).to_be_hidden()
    page.get_by_text("Thinking", exact=True).click()
    expect(page.get_by_text("A bird.")).to_be_visible()
    stream.feed(DONE)
    stream.end()
    expect(answer(page)).to_contain_text("8 tokens · 20.0/s")
    ask(page, "And storks?")
    wait_for(lambda: len(bodies(scripted, *CHAT)) == 2)
    messages = bodies(scripted, *CHAT)[1]["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == f"Herons {answers.HOSTILE}"
    stream.feed(DONE)
    stream.end()
    expect(answer(page)).to_have_attribute("aria-busy", "false")


def test_chat_page_kill_button_after_confirmation_kills_the_engine_and_marks_the_kill_in_the_answer(
    open_page, scripted, stream
):
    page = open_page("#chat")
    ask(page)
    stream.feed(said("Once upon a time "))
    expect(answer(page)).to_contain_text("Once upon")
    confirm(page.get_by_role("button", name="Kill the engine now"))
    wait_for_request(scripted, *KILL)
    expect(answer(page)).to_contain_text("The engine was killed. The answer waits for a new one…")
    stream.feed(said(), said("there was a heron."), DONE)
    stream.end()
    expect(answer(page).locator(".mark")).to_contain_text(
        "the engine was killed here; the answer went on after"
    )
    text = answer(page).locator(".written").inner_text()
    assert text.index("Once upon") < text.index("the engine was killed") < text.index("there was a heron.")
    assert page.accessibility_faults() == []  # in light colors; other tests check the sections in dark ones


def test_chat_page_shows_why_an_engine_kill_was_refused_and_marks_no_engine_death_in_the_answer(
    open_page, scripted, stream
):
    scripted.answers[KILL] = lambda _: answers.refusal(409, "The engine does not run.", "not_running")
    page = open_page("#chat")
    page.expected.append("409")
    ask(page)
    stream.feed(said(thinking="Hm"))
    expect(answer(page)).to_contain_text("Thinking")  # later, it would be text after a pause, which is marked
    confirm(page.get_by_role("button", name="Kill the engine now"))
    expect(page.get_by_role("alert")).to_have_text("The engine does not run.")
    stream.feed(said("text"), DONE)
    stream.end()
    expect(answer(page)).to_contain_text("text")
    expect(page.locator(".mark")).to_have_count(0)


def test_chat_page_after_a_broken_connection_continues_the_answer_without_repeating_text(
    open_page, scripted, stream
):
    scripted.answers["GET", "/gateway/v1/streams/abc"] = rest = FedStream(**{"X-Request-Id": "abc"})
    page = open_page("#chat")
    page.expected.append("ERR_")
    ask(page)
    stream.feed(said("one "), said(), said("two "))
    stream.feed_bytes(b'{"message": {"content": "thr')
    expect(answer(page)).to_contain_text("one two")
    stream.cut()
    wait_for(lambda: rest.requests)
    # Three complete lines have arrived, one of them a keep-alive.
    assert rest.requests[0].query_string == "from=3"
    rest.feed(said("three"), DONE)
    rest.end()
    expect(answer(page).locator(".mark")).to_contain_text(
        "the connection broke here; the answer went on after"
    )
    assert answer(page).locator(".written").text_content().replace(
        answer(page).locator(".mark").text_content(), "|"
    ) == "one two |three"  # fmt: skip


def test_chat_page_repeats_its_request_with_the_same_key_if_the_gateway_dies_before_answering(
    open_page, scripted, stream
):
    keys = []

    def died_at_first(request):
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            return answers.refusal(502, "The MLX server broke off its answer.", "gateway_unreachable")
        return stream(request)

    scripted.answers[CHAT] = died_at_first
    page = open_page("#chat")
    page.expected.append("502")
    ask(page)
    stream.feed(said("here"), DONE)
    stream.end()
    expect(answer(page)).to_contain_text("here")
    assert len(set(keys)) == 1 and len(keys) == 2


def test_chat_page_shows_a_refusal_or_an_error_during_the_answer_within_the_answer(
    open_page, scripted, stream
):
    scripted.answers[CHAT] = lambda _: answers.ndjson(
        {"error": "The model does not fit.", "code": "no_memory"}, status=507
    )
    page = open_page("#chat")
    page.expected.append("507")
    ask(page)
    expect(answer(page).get_by_role("alert")).to_have_text("The model does not fit.")
    scripted.answers[CHAT] = stream
    ask(page)
    stream.feed(said("half"), {"error": "The request crashed the engine three times."})
    stream.end()
    expect(answer(page).get_by_role("alert")).to_have_text("The request crashed the engine three times.")
    expect(answer(page)).to_contain_text("half")


def test_chat_page_sends_later_messages_without_a_refused_one_and_says_so(open_page, scripted, stream):
    """A message that was too large was sent again with each later one, so each was refused."""
    scripted.answers[CHAT] = lambda _: answers.refusal(413, "The body is too large.", "too_large")
    page = open_page("#chat")
    page.expected.append("413")
    ask(page, "Far too much.")
    expect(answer(page).get_by_role("alert")).to_have_text("The body is too large.")
    expect(answer(page)).to_contain_text("The next messages are sent without this one.")
    scripted.answers[CHAT] = stream
    ask(page, "A little.")
    stream.feed(DONE)
    stream.end()
    wait_for(lambda: len(bodies(scripted, *CHAT)) == 2)
    assert bodies(scripted, *CHAT)[1]["messages"] == [{"role": "user", "content": "A little."}]
    expect(answer(page)).to_have_attribute("aria-busy", "false")


def test_chat_page_answer_continues_while_another_section_is_shown_and_stops_by_button(open_page, stream):
    page = open_page("#chat")
    ask(page)
    stream.feed(said("one "))
    expect(answer(page)).to_contain_text("one")
    page.get_by_role("link", name="Now").click()
    stream.feed(said("two "))
    page.get_by_role("link", name="Chat").click()
    expect(answer(page)).to_contain_text("one two")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page)).to_contain_text("stopped")
    wait_for(lambda: stream.left)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("article")).to_have_count(0)


def test_chat_page_leaves_out_the_images_of_earlier_messages_that_a_request_has_no_room_for_and_says_so(
    open_page, scripted, stream
):
    """Two photos of 3.5 MiB were refused (413), and so was each later message of the conversation."""
    scripted.answers["GET", "/gateway/api/tags"]["models"][1]["capabilities"] = ["completion", "vision"]
    page = open_page("#chat")
    photo = bytes(3_500_000)
    for name in ("a.png", "b.png"):
        file: FilePayload = {"name": name, "mimeType": "image/png", "buffer": photo}
        page.get_by_label("Images").set_input_files([file])
        expect(page.get_by_role("button", name=f"Remove {name}")).to_be_visible()
        ask(page, "What is it?")
        stream.feed(said("A heron."), DONE)
        stream.end()
        expect(answer(page)).to_contain_text("A heron.")
        expect(answer(page)).to_have_attribute("aria-busy", "false")
    questions = page.get_by_role("article", name="Your message")
    left_out = "The next messages are sent without these images"
    expect(questions.first).to_contain_text(left_out)
    expect(questions.last).not_to_contain_text(left_out)
    ask(page, "Really?")
    wait_for(lambda: len(bodies(scripted, *CHAT)) == 3)
    stream.feed(DONE)
    stream.end()
    sent = [["images" in each for each in body["messages"]] for body in bodies(scripted, *CHAT)]
    assert sent == [[True], [False, False, True], [False, False, True, False, False]]
    expect(answer(page)).to_have_attribute("aria-busy", "false")


def test_chat_page_shows_an_image_and_sends_it_with_its_message_in_every_later_turn(
    open_page, scripted, stream
):
    """Only a model with the capability `vision` is offered images."""
    page = open_page("#chat")
    expect(page.get_by_label("Model")).to_have_value("qwen3.5:9b")
    expect(page.get_by_label("Images")).to_have_count(0)
    tags = scripted.answers["GET", "/gateway/api/tags"]
    tags["models"][1]["capabilities"] = ["completion", "vision"]
    page.reload()
    pixel = base64.b64decode("R0lGODlhAQABAIAAAAUEBAAAACwAAAAAAQABAAACAkQBADs=")
    files: list[FilePayload] = [
        {"name": name, "mimeType": "image/gif", "buffer": pixel} for name in ("a.gif", "b.gif")
    ]
    page.get_by_label("Images").set_input_files(files)
    page.get_by_role("button", name="Remove b.gif").click()
    ask(page, "What is it?")
    expect(page.get_by_role("article", name="Your message").get_by_alt_text("a.gif")).to_be_visible()
    stream.feed(said("A pixel."), DONE)
    stream.end()
    expect(page.get_by_role("article", name="Answer of")).to_have_attribute("aria-busy", "false")
    ask(page, "Really?")
    wait_for(lambda: len(bodies(scripted, *CHAT)) == 2)
    first, second = (each["messages"] for each in bodies(scripted, *CHAT))
    assert first == [{"role": "user", "content": "What is it?", "images": [base64.b64encode(pixel).decode()]}]
    assert second[0] == first[0] and "images" not in second[2]
    stream.feed(DONE)
    stream.end()
    large: FilePayload = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(6 * 1024 * 1024)}
    page.get_by_label("Images").set_input_files([large])
    expect(page.get_by_text("over 5 MiB together")).to_be_visible()
