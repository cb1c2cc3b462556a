"""The plots: ranges, live samples, gaps, marks of incidents, the common crosshair, and their text."""

from __future__ import annotations

import asyncio
import re
import time

from playwright.sync_api import expect

from tests.component.host_agent.page import stories
from tests.component.host_agent.page.section_helpers import wait_for

PLOTS = 6


def plot(page, title):
    return page.locator("figure").filter(has=page.get_by_role("heading", name=title, exact=True))


def test_every_plot_has_a_canvas_and_a_sentence_for_screen_readers(page):
    expect(page.locator("#plots canvas")).to_have_count(PLOTS)
    pictures = page.locator("#plots").get_by_role("img")
    expect(pictures).to_have_count(PLOTS)
    for index in range(PLOTS):
        expect(pictures.nth(index)).to_have_accessible_name(re.compile(r", the last hour\. .*\d.*\."))
    expect(plot(page, "Memory of the engine")).to_contain_text(" of at most 20.0 GiB")


def test_plots_range_button_loads_the_history_of_that_range(page, scripted):
    expect(page.locator("#plots canvas")).to_have_count(PLOTS)
    page.get_by_role("button", name="Week").click()
    expect(page.locator("#plots").get_by_role("img").first).to_have_accessible_name(
        re.compile("the last week")
    )
    expect(page.get_by_role("button", name="Week")).to_have_attribute("aria-pressed", "true")
    asked = [path for _, path, _ in scripted.asked if path.startswith("/history")]
    assert asked == ["/history?range=hour", "/history?range=week"]


def test_plots_name_the_range_that_they_show_until_the_requested_range_is_loaded(page, scripted):
    """Earlier, they named the week at once, and showed the hour until the agent answered."""
    picture = page.locator("#plots").get_by_role("img").first
    expect(picture).to_have_accessible_name(re.compile("the last hour"))
    answered = asyncio.Event()

    async def late(request):
        await answered.wait()
        return stories.history("week")

    scripted.answers["GET", "/history"] = late
    page.get_by_role("button", name="Week").click()
    expect(page.get_by_role("button", name="Week")).to_have_attribute("aria-pressed", "true")
    expect(picture).to_have_accessible_name(re.compile("the last hour"))
    scripted.send("sample", stories.sample(tokens_out_per_s=777.0))
    expect(plot(page, "Tokens a second")).to_contain_text("Out 777/s now")
    scripted.call_soon(answered.set)
    expect(picture).to_have_accessible_name(re.compile("the last week"))


def test_plots_add_a_live_sample_without_loading_the_history_again(page, scripted):
    expect(page.locator("#plots canvas")).to_have_count(PLOTS)
    scripted.send("sample", stories.sample(tokens_out_per_s=777.0))
    expect(plot(page, "Tokens a second")).to_contain_text("Out 777/s now, 777/s at most")
    expect(plot(page, "Tokens a second").get_by_role("button").first).to_contain_text("777/s")
    assert len([path for _, path, _ in scripted.asked if path.startswith("/history")]) == 1


def test_plots_mark_a_new_incident_on_every_plot_with_a_tooltip_and_update_the_incident_count(page, scripted):
    expect(page.locator("#plots canvas")).to_have_count(PLOTS)
    expect(page.locator(".marks summary")).to_have_text("1 incident in the last hour, marked on each plot")
    picture = page.locator("#plots").get_by_role("img").first
    expect(picture).to_have_accessible_name(re.compile(r" 1 incident is marked\.$"))
    scripted.send_incident(stories.incident(5, began_s_ago=900, title="The engine ran out of memory"))
    expect(page.locator(".marks summary")).to_have_text("2 incidents in the last hour, marked on each plot")
    expect(picture).to_have_accessible_name(re.compile(r" 2 incidents are marked\.$"))
    for figure in page.locator("figure").all():
        over = figure.locator(".u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        # The incident began 900 s ago, in a range of 3600 s.
        page.mouse.move(box["x"] + box["width"] * 0.75 - 1, box["y"] + box["height"] / 2)
        expect(figure.locator(".tip")).to_contain_text("The engine ran out of memory")


def test_plots_crosshair_moves_on_all_plots_together(open_page, scripted):
    # The plots end at the present time, or at the newest figures: in this way they do not move meanwhile.
    history = stories.history()
    scripted.answers["GET", "/history"] = history | {"times": [ts + 3600 for ts in history["times"]]}
    page = open_page()
    expect(page.locator("#plots canvas")).to_have_count(PLOTS)
    plot(page, "Memory of the engine").locator(".u-over").hover(position={"x": 200, "y": 40})
    lines = page.locator(".u-cursor-x")
    assert lines.count() == PLOTS
    for index in range(PLOTS):
        expect(lines.nth(index)).to_be_visible()
    # The x position of the one restart, in pixels.
    middle = page.locator(".u-over").first.bounding_box()["width"] * 1815 / 3600
    plot(page, "Memory of the engine").locator(".u-over").hover(position={"x": middle, "y": 40})
    expect(plot(page, "Restarts").get_by_role("button")).to_have_text(
        re.compile(r"Restarts of all services\s*1")
    )
    transforms = lines.evaluate_all("lines => lines.map(line => line.style.transform)")
    assert all(re.search(r"translate\(\d", each) for each in transforms), transforms


def test_plots_legend_entry_hides_and_shows_its_line_by_keyboard(page):
    memory = plot(page, "Memory of the engine")
    key = memory.get_by_role("button", name=re.compile("^Prompt cache"))
    expect(key).to_have_attribute("aria-pressed", "true")
    key.focus()
    page.keyboard.press("Enter")
    expect(key).to_have_attribute("aria-pressed", "false")
    expect(memory.locator("canvas")).to_have_count(1)
    page.keyboard.press("Space")
    expect(key).to_have_attribute("aria-pressed", "true")


def test_plots_adapt_to_the_width_of_the_window_and_the_color_scheme(page):
    canvas = plot(page, "Memory of the engine").locator("canvas")
    before = canvas.bounding_box()["width"]
    page.set_viewport_size({"width": 375, "height": 800})
    assert before >= 340
    wait_for(lambda: canvas.bounding_box()["width"] < 340)
    ink = "() => getComputedStyle(document.documentElement).getPropertyValue('--plot-1').trim()"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ink) != light
    expect(canvas).to_have_count(1)


def test_plots_break_a_line_at_missing_samples_and_say_that_an_empty_history_has_no_data(open_page, scripted):
    now = int(time.time())
    times = [now - 1000, now - 990, now - 500, now - 490]
    code = """async (body) => {
      const { withGaps, append, trim, stacked } = await import("/assets/plots/data.js");
      const history = withGaps(body);
      append(history, body.times.at(-1) + 10, { a: 5 });
      const all = history.times.length, values = [...history.series.a];
      trim(history, body.times[2]);
      return [all, values, history.times.length, stacked([[1, null], [2, null], [null, 4]])];
    }"""
    scripted.answers["GET", "/history"] = stories.history() | {"times": [], "series": {}, "marks": []}
    page = open_page()
    expect(page.locator("#plots")).to_contain_text("There are no figures yet")
    body = {"times": times, "series": {"a": [1, 2, 3, 4]}, "step_s": 10}
    assert page.evaluate(code, body) == [6, [1, 2, None, 3, 4, 5], 3, [[1, None], [3, None], [3, 4]]]
