"""The page's requests in flight and its models: what they show, and what each action asks for."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.component.host_agent.page import section_answers as answers
from tests.component.host_agent.page.section_helpers import (
    FedStream,
    bodies,
    confirm,
    wait_for,
    wait_for_request,
)
from vestal.config.units import format_size


def rows(page):
    return page.locator("tbody tr")


def test_page_lists_each_request_with_client_and_model_and_phase_and_keeps_focus_when_others_end(
    open_page, scripted
):
    parked = answers.request(2, client="Open WebUI 0.12", phase="parked", crashes=2)
    scripted.requests = answers.frame(
        answers.request(1), parked, answers.request(3, client="", phase="queued")
    )
    page = open_page("#requests")
    # The age at the end grows without a new frame.
    first = r"Claude Code 2\.1127\.0\.0\.1qwen3\.5:9brunning18,23141241\.2/s\d+ s"
    expect(rows(page).nth(0)).to_contain_text(re.compile(first))
    expect(rows(page).nth(1)).to_contain_text(
        "It waits for a new engine, and then goes on with its next token."
    )
    expect(rows(page).nth(1)).to_contain_text("It survived 2 crashes of the engine.")
    expect(rows(page).nth(2)).to_contain_text("unknown program")
    page.get_by_role("button", name="Cancel the request of Open WebUI 0.12").focus()
    scripted.send("requests", answers.frame(answers.request(0), parked | {"tokens": 413}))
    expect(rows(page).nth(1)).to_contain_text("413")
    expect(page.get_by_role("button", name="Cancel the request of Open WebUI 0.12")).to_be_focused()
    scripted.send("requests", answers.frame())
    expect(page.get_by_text("No request is in flight.")).to_be_visible()
    scripted.send("requests", answers.frame() | {"totals": None})  # no gateway answers
    expect(page.get_by_text("The gateway does not answer, so its requests are not known.")).to_be_visible()


def test_page_cancels_a_request_after_confirmation_and_shows_a_refusal_beside_the_button(open_page, scripted):
    scripted.requests = answers.frame(answers.request(1))
    path = f"/gateway/requests/{1:032x}"
    scripted.answers["DELETE", path] = lambda _: answers.refusal(404, "There is no request 1; it has ended.")
    page = open_page("#requests")
    page.expected.append("404")
    confirm(page.get_by_role("button", name="Cancel the request"))
    wait_for_request(scripted, "DELETE", path)
    expect(rows(page).get_by_role("alert")).to_have_text("There is no request 1; it has ended.")


def test_page_lists_two_hundred_requests_and_shows_hostile_or_missing_data_as_plain_text(open_page, scripted):
    odd = answers.request(0, client=answers.HOSTILE, model=answers.LONG_NAME, phase="dreaming")
    bare = {"id": "x"} | dict.fromkeys(("client", "remote", "model", "phase", "tokens", "age_s", "crashes"))
    many = [answers.request(number) for number in range(1, 199)]
    scripted.requests = answers.frame(odd, bare, *many) | {"omitted": 7}
    page = open_page("#requests", size=(375, 800), dark=True)
    expect(rows(page)).to_have_count(200)
    expect(page.get_by_text("7 further requests are not listed.")).to_be_visible()
    expect(rows(page).nth(0)).to_contain_text(answers.HOSTILE)
    expect(rows(page).nth(0)).to_contain_text("dreaming")
    expect(rows(page).nth(1)).to_contain_text("unknown")
    scripted.send("requests", {"requests": None})
    expect(page.get_by_text("No request is in flight.")).to_be_visible()


def test_page_shows_whether_each_model_fits_in_memory_and_has_buttons_to_load_unload_and_delete_it(
    open_page, scripted
):
    scripted.answers |= answers.changing_models()
    page = open_page("#models")
    small, loaded, large = (rows(page).nth(index) for index in range(3))
    expect(small).to_contain_text("smollm2:135m9.2B · Q4no257 MiB40,960fitsneeds 6.0 GiB of 20.0 GiB")
    expect(loaded).to_contain_text("loaded6.0 GiB5.0 GiB32,768")
    expect(large).to_contain_text("too largeneeds 41.0 GiB of 20.0 GiB")
    expect(rows(page).nth(3)).to_contain_text("not known")
    expect(
        page.get_by_text("7.0 GiB of 20.0 GiB in use: weights 5.0 GiB, keys and values 1.0 GiB.")
    ).to_be_visible()
    small.get_by_role("button", name="Load smollm2:135m").click()
    expect(small).to_contain_text("loaded1.0 GiB")
    loaded.get_by_role("button", name="Unload qwen3.5:9b").click()
    expect(loaded.get_by_role("button", name="Load qwen3.5:9b", exact=True)).to_be_focused()
    asked = bodies(scripted, "POST", "/gateway/api/generate")
    assert asked == [{"model": "smollm2:135m"}, {"model": "qwen3.5:9b", "keep_alive": 0}]
    confirm(small.get_by_role("button", name="Delete smollm2:135m"))
    expect(rows(page)).to_have_count(3)
    assert bodies(scripted, "DELETE", "/gateway/api/delete") == [{"model": "smollm2:135m"}]


def test_page_still_shows_a_pulls_progress_after_a_change_of_section_and_can_cancel_the_pull(
    open_page, scripted
):
    scripted.answers |= answers.models()
    scripted.answers["POST", "/gateway/api/pull"] = stream = FedStream()
    page = open_page("#models")
    page.get_by_label("Pull a model").fill(" qwen3:4b ")
    page.get_by_label("Pull a model").press("Enter")
    stream.feed({"status": "pulling 8f1e", "total": 4 * answers.GIB, "completed": answers.GIB})
    bar = page.get_by_role("progressbar", name="Download of qwen3:4b")
    expect(bar).to_have_attribute("value", str(answers.GIB))
    expect(page.get_by_text("1.0 GiB of 4.0 GiB")).to_be_visible()
    page.get_by_role("link", name="Chat").click()
    speed = {"bytes_per_s": 45 * 1024**2, "remaining_s": 46.2}
    stream.feed(
        {"status": "pulling 8f1e", "total": 4 * answers.GIB, "completed": 2 * answers.GIB, "vestal": speed}
    )
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_text("2.0 GiB of 4.0 GiB · 45.0 MiB/s · 46 s left")).to_be_visible()
    page.get_by_role("button", name="Cancel the download of qwen3:4b").click()
    expect(bar).to_have_count(0)
    wait_for(lambda: stream.left)
    assert ("POST", "/gateway/api/pull", {"model": "qwen3:4b"}) in scripted.asked


def test_page_formats_sizes_as_the_command_line_does(open_page, scripted):
    """Earlier, the command line counted in GB and the page in GiB: the figures were up to 10 % apart."""
    sizes = [
        0,
        999,
        1000,
        1024,
        93_400_000,
        999 * 1024**2,
        1000 * 1024**2,
        3 * 1024**3,
        128 * 1024**3,
        10**16,
    ]
    scripted.answers |= answers.models()
    page = open_page("#models")
    shown = page.evaluate("sizes => import('/assets/format.js').then(({ bytes }) => sizes.map(bytes))", sizes)
    assert shown == [format_size(size) for size in sizes]


def test_page_shows_one_sentence_for_a_failed_pull_and_lists_the_model_of_a_finished_one(open_page, scripted):
    scripted.answers |= answers.models()
    why = "The hub cannot be reached: name resolution failed. Check the network, then pull it again."
    scripted.answers["POST", "/gateway/api/pull"] = lambda _: answers.ndjson(
        {"status": "pulling manifest"}, {"error": why, "code": "hub_unreachable"}
    )
    page = open_page("#models")
    page.get_by_label("Pull a model").fill("qwen3:4b")
    page.get_by_role("button", name="Pull", exact=True).click()
    expect(page.get_by_role("alert")).to_have_text(why)
    scripted.answers["POST", "/gateway/api/pull"] = lambda _: answers.ndjson({"status": "success"})
    scripted.answers |= answers.models(answers.model("qwen3:4b"))
    page.get_by_label("Pull a model").fill("qwen3:4b")
    page.get_by_role("button", name="Pull", exact=True).click()
    expect(page.get_by_text("It is installed.")).to_be_visible()
    expect(rows(page)).to_have_count(1)


def test_page_models_section_shows_one_sentence_if_the_gateway_does_not_answer(open_page, scripted):
    why = "The MLX server cannot be reached: nothing listens there; `vestal status` says why."
    for path in ("/gateway/api/tags", "/gateway/api/ps", "/gateway/health"):
        scripted.answers["GET", path] = lambda _: answers.refusal(502, why)
    page = open_page("#models")
    page.expected.append("502")
    expect(page.get_by_role("alert")).to_have_text(why)
    odd = answers.model(answers.HOSTILE, size=None, details=None, vestal={"fits": None}, capabilities=None)
    scripted.answers |= answers.models(odd)
    page.get_by_role("button", name="Refresh").click()
    expect(rows(page)).to_contain_text([answers.HOSTILE])
    expect(page.get_by_role("alert")).to_have_count(0)
