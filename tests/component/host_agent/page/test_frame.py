"""The frame of the page: verdict, navigation, the closed state, and an agent that stops and restarts."""

from __future__ import annotations

import asyncio
import shutil

from aiohttp import web
from playwright.sync_api import expect

from host_agent.status_page.page import ASSETS, Page
from tests.browser import NARROW, WIDE
from tests.component.host_agent.page import stories
from tests.component.host_agent.page.section_helpers import stop_clock, wait_for, wait_for_request

UNREACHABLE = "ERR_CONNECTION_REFUSED"
CUT = "ERR_INCOMPLETE_CHUNKED_ENCODING"
REFUSED = "401 (Unauthorized)"


def verdict(page):
    return page.locator(".verdict-text")


def tell_a_long_story(scripted):
    """Let the agent report faults, incidents, and very long words."""
    scripted.status = stories.troubled()
    for number in range(12):
        worker = stories.service(parent="docker", process_pid=None, detail="")
        scripted.status["services"][f"worker-with-a-long-name-{number}"] = worker
    scripted.status["services"]["mlx_server"]["uptime_s"] = 23 * 3600.0 + 59 * 60
    scripted.status["services"]["ollama"]["detail"] = "/very/long/path" * 20
    closed = [stories.incident(number, began_s_ago=700.0 * (10 - number)) for number in range(8, 1, -1)]
    scripted.incidents = [stories.incident(9, began_s_ago=18, lasted_s=None), *closed]
    scripted.sample = stories.sample()


def test_page_summary_sentence_and_window_title_change_when_services_become_unhealthy(page, scripted):
    expect(verdict(page)).to_have_text("All services are healthy.")
    expect(page.tab).to_have_title("Vestal")
    scripted.send_status(**stories.troubled())
    expect(verdict(page)).to_have_text("The engine is down and is tried again soon; Docker is not running.")
    expect(page.tab).to_have_title("⚠ Vestal")


def overflowing(page):
    """Return the elements that extend beyond the right edge of the page."""
    return page.evaluate("""() => [...document.querySelectorAll("main *")]
        .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
        .map(e => `${e.tagName} ${e.className} ${e.textContent.slice(0, 40)}`)""")


def overflowing_at_rest(page):
    """Return the elements that still extend beyond the page once its plots had time to follow the window."""
    for _ in range(300):
        if not (found := overflowing(page)):
            break
        page.tab.wait_for_timeout(100)
    return found


def test_page_is_accessible_and_not_wider_than_the_window_in_each_color_scheme_and_width(open_page, scripted):
    tell_a_long_story(scripted)
    scripted.answers["GET", "/incidents/9"] = stories.incident(9) | {"entries": stories.entries(9)}
    page = open_page()
    expect(page.locator(".plot canvas")).to_have_count(6)
    page.locator("article.open").get_by_role("button", name="Show the journal's lines").click()
    expect(page.locator("article.open").get_by_role("table")).to_contain_text("signal=9")
    for width in (1000, 800):
        page.set_viewport_size({"width": width, "height": 900})
        assert overflowing_at_rest(page) == [], width
    page.set_viewport_size({"width": WIDE[0], "height": WIDE[1]})
    for dark, size in ((False, None), (True, None), (True, NARROW), (False, NARROW)):
        if size:
            page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        page.emulate_media(color_scheme="dark" if dark else "light")
        expect(page.locator(".plot canvas")).to_have_count(6)
        # What does not depend on colors is the same in light and dark.
        rules = (
            ["color-contrast", "link-in-text-block"]
            if (dark, size) in ((True, None), (False, NARROW))
            else []
        )
        assert page.accessibility_faults(*rules) == [], (dark, size)
        assert overflowing_at_rest(page) == [], size


def test_page_navigation_by_keyboard_reaches_the_content_and_every_section(open_page):
    page = open_page()
    page.expected = ["404 (Not Found)"]  # the module of this section cannot be loaded
    expect(page.get_by_role("button", name="Recover now")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Recover now"
    for title in ("Now", "Requests", "Models", "Chat", "Orchestrator", "Doctor", "Clients"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == title
        page.keyboard.press("Enter")
        link = page.get_by_role("link", name=title, exact=True)
        expect(link).to_have_attribute("aria-current", "page")
        expect(page.get_by_role("main").locator("section").first).to_be_visible()


def test_page_without_a_session_explains_the_login_and_opens_after_a_login_in_another_tab(
    open_page, scripted
):
    scripted.closed = True
    page = open_page(ready=False)
    page.expected = [REFUSED]
    expect(page.get_by_role("heading", name="This page is closed")).to_be_visible()
    expect(page.get_by_text("vestal status --open")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("for twelve hours, also if the agent restarts meanwhile")
    assert page.accessibility_faults() == []
    asked = len(scripted.asked)
    page.wait_for_timeout(1200)  # longer than the first pauses between reconnections
    assert len(scripted.asked) == asked, "each refusal is a line in the journal"
    scripted.closed = False
    other = page.context.new_page()
    other.goto(scripted.url, wait_until="commit")
    expect(verdict(page)).to_have_text("All services are healthy.")
    expect(page.get_by_role("heading", name="Services")).to_be_visible()


def test_closed_page_focused_while_the_agent_is_down_shows_that_it_is_closed_once_the_agent_is_back(
    open_page, scripted
):
    """The page stayed at "The agent does not answer. This page tries again by itself.", and did nothing."""
    scripted.closed = True
    page = open_page(ready=False)
    page.expected = [REFUSED, UNREACHABLE, CUT]
    closed = page.get_by_role("heading", name="This page is closed")
    expect(closed).to_be_visible()
    scripted.stop()
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(verdict(page)).to_contain_text("The agent does not answer since ")
    scripted.start()
    expect(closed).to_be_visible()
    scripted.closed = False
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(verdict(page)).to_have_text("All services are healthy.")


def hide(page, is_hidden):
    page.evaluate(
        """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""",
        is_hidden,
    )


def test_tab_hidden_for_a_minute_closes_its_stream_if_another_tab_is_connected_and_says_so_until_it_is_shown(
    open_page, scripted
):
    """A browser allows six connections to a host: the seventh tab did not load, and buttons did nothing."""
    page = open_page(clock=True)
    hide(page, True)
    page.clock.run_for(70_000)
    scripted.send_status(**stories.troubled())
    expect(page.tab).to_have_title("⚠ Vestal")  # the only tab still warns
    other = page.context.new_page()
    other.goto(scripted.url, wait_until="commit")
    expect(other.locator(".connection")).to_have_text("live")
    page.clock.run_for(2_000)
    expect(page.tab).to_have_title("Vestal (paused)")
    expect(verdict(page)).to_have_text("This tab was hidden, so the page does not ask the agent.")

    def streams_after_a_status() -> int:
        scripted.send_status(verdict="The engine is back.")
        return scripted.streams

    wait_for(lambda: streams_after_a_status() == 1)
    expect(other.locator(".verdict-text")).to_have_text("The engine is back.")
    hide(page, False)
    expect(verdict(page)).to_have_text("The engine is back.")
    other.close()
    hide(page, True)
    page.clock.run_for(70_000)
    scripted.send_status(**stories.troubled())
    expect(page.tab).to_have_title("⚠ Vestal")  # it is the only tab again


def test_page_button_reports_an_agent_that_does_not_answer_in_time(page, scripted):
    page.evaluate("""() => {
        const timeout = AbortSignal.timeout;
        AbortSignal.timeout = () => timeout.call(AbortSignal, 200);
    }""")
    scripted.answers["POST", "/recover"] = lambda request: asyncio.sleep(30)
    page.get_by_role("button", name="Recover now").click()
    expect(page.get_by_role("alert")).to_contain_text("No answer came within 70 s. Try again;")


def test_page_reports_a_killed_agent_and_reconnects_to_the_next_one(page, scripted):
    page.expected = [UNREACHABLE, CUT]
    expect(verdict(page)).to_have_text("All services are healthy.")
    scripted.stop()
    expect(verdict(page)).to_contain_text("The agent does not answer since ")
    expect(page.get_by_role("button", name="Recover now")).to_have_count(0)
    assert page.accessibility_faults("color-contrast") == []
    scripted.status["verdict"] = "The agent has just started."
    scripted.start()
    expect(verdict(page)).to_have_text("The agent has just started.")


def test_page_reports_a_silent_agent_whose_connections_stay_open(open_page, scripted):
    page = open_page(clock=True)
    expect(verdict(page)).to_have_text("All services are healthy.")
    scripted.answers["GET", "/health"] = lambda request: asyncio.Event().wait()
    stop_clock(page)
    page.clock.run_for(1_000)  # the agent should have sent a status after 10 s
    wait_for_request(scripted, "GET", "/health")
    page.clock.run_for(3_500)  # it should have answered within 3 s
    expect(verdict(page)).to_contain_text("The agent does not answer")
    page.clock.run_for(5_000)
    # The page opens its event stream again, which the agent still serves.
    expect(verdict(page)).to_have_text("All services are healthy.")


def test_page_offers_a_reload_after_an_upgrade_of_the_agent(page, scripted, tmp_path):
    page.expected = [UNREACHABLE, CUT]
    expect(verdict(page)).to_have_text("All services are healthy.")
    newer = tmp_path / "assets"
    shutil.copytree(ASSETS, newer)
    (newer / "format.js").write_text((ASSETS / "format.js").read_text() + "// changed\n")
    scripted.stop()
    scripted.page = Page(newer)
    scripted.start()
    page.get_by_role("button", name="Reload: this page has a new version").click()
    expect(verdict(page)).to_have_text("All services are healthy.")
    expect(page.get_by_role("button", name="Reload: this page has a new version")).to_have_count(0)


def test_page_section_opened_while_the_agent_is_down_loads_when_the_agent_is_back(page, scripted):
    page.expected = [UNREACHABLE, CUT, "404 (Not Found)"]
    expect(verdict(page)).to_have_text("All services are healthy.")
    scripted.stop()
    page.get_by_role("link", name="Doctor").click()
    expect(page.get_by_role("main")).to_contain_text("This section could not be loaded.")
    scripted.start()
    expect(page.get_by_role("main")).not_to_contain_text("could not be loaded")
    expect(page.get_by_role("main").get_by_role("heading", name="Doctor")).to_be_visible()


def test_page_requires_a_login_after_a_new_agent_rejects_its_session_and_reopens_after_that_login(
    page, scripted
):
    page.expected = [UNREACHABLE, CUT, REFUSED]
    expect(verdict(page)).to_have_text("All services are healthy.")
    scripted.stop()
    scripted.closed = True
    scripted.start()
    expect(page.get_by_role("heading", name="This page is closed")).to_be_visible()
    scripted.closed = False  # as if `vestal status --open` had logged this browser in
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(verdict(page)).to_have_text("All services are healthy.")


def test_page_recover_button_requests_a_recovery_pass_and_shows_the_error_if_refused(page, scripted):
    page.get_by_role("button", name="Recover now").click()
    wait_for_request(scripted, "POST", "/recover", {})
    expect(page.get_by_role("button", name="Recover now")).to_be_enabled()
    page.expected = ["429"]
    scripted.answers["POST", "/recover"] = lambda request: _too_many()
    page.get_by_role("button", name="Recover now").click()
    expect(page.get_by_role("alert")).to_have_text("Too many passes were requested; try again in 5 s.")


def _too_many():
    message = "Too many passes were requested; try again in 5 s."
    return web.json_response({"error": {"code": "too_many_requests", "message": message}}, status=429)
