"""The tree of services, the machine, the last recovery pass, and the cards of incidents."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.component.host_agent.page import stories
from tests.component.host_agent.page.section_helpers import confirm, stop_clock, wait_for, wait_for_request


def row(page, title):
    return page.get_by_role("row").filter(has=page.locator(".branch", has_text=title)).first


def test_page_shows_services_as_a_tree_below_their_parents(page):
    expect(page.locator(".tree tbody tr")).to_have_class(
        ["depth-0", "depth-1", "depth-2", "depth-1", "depth-1", "depth-2", "depth-2"]
    )
    expect(row(page, "Engine")).to_contain_text(", below Gateway")
    expect(row(page, "Nightly")).to_contain_text(", below Docker")


def at_a_stopped_clock(open_page, scripted):
    """Return a page whose clock stands at the time at which its newest status came."""
    page = open_page(clock=True)
    expect(page.locator(".plot canvas")).to_have_count(6)  # until then, the page still asks for what it shows
    stop_clock(page)
    scripted.send_status(verdict="All is well.")
    expect(page.locator(".verdict-text")).to_have_text("All is well.")
    return page


def test_page_updates_the_age_of_a_service_without_requests_to_the_agent(open_page, scripted):
    page = at_a_stopped_clock(open_page, scripted)
    up = row(page, "Engine").locator("td.up")
    expect(up).to_have_text("59 s")
    asked = asked_without_silence(scripted)
    page.clock.run_for(5_000)  # the page shows ages anew each second
    expect(up).to_have_text(re.compile(r"1 min [34] s"))
    assert asked_without_silence(scripted) == asked


def asked_without_silence(scripted):
    """Return the requests, except for the one by which a page finds out whether a silent agent is alive."""
    return [each for each in scripted.asked if each[1] != "/health"]


def test_page_shows_an_open_breaker_with_a_countdown_to_its_trial_and_the_last_failure(open_page, scripted):
    scripted.status = stories.troubled()
    page = at_a_stopped_clock(open_page, scripted)
    engine = row(page, "Engine")
    expect(engine).to_contain_text("breaker open")
    expect(engine).to_contain_text("the next trial is in 42 s.")
    page.clock.run_for(5_000)
    expect(engine).to_contain_text(re.compile(r"the next trial is in 3[78] s\."))
    expect(engine).to_contain_text("The engine was killed by SIGKILL; its sender is unknown.")
    expect(engine.locator("td.restarts")).to_have_text("5")


def test_page_restart_button_asks_for_confirmation_which_a_double_click_does_not_give(open_page, scripted):
    page = open_page(clock=True)
    stop_clock(page)  # the machine may let more time pass between two clicks than a double click may take
    button = row(page, "Gateway").get_by_role("button", name="restart Gateway")
    button.dblclick()
    sure = row(page, "Gateway").get_by_role("button", name="Really restart?")
    expect(sure).to_be_visible()
    assert not [each for each in scripted.asked if each[0] == "POST"]
    scripted.answers["POST", "/services/mlx_server/restart"] = {"state": "accepted"}
    page.clock.run_for(400)
    sure.click()
    wait_for_request(scripted, "POST", "/services/mlx_server/restart", {})
    expect(row(page, "Gateway").get_by_role("button", name="restart Gateway")).to_be_enabled()


def test_page_button_starts_an_engine_behind_an_open_breaker_after_confirmation(open_page, scripted):
    """Earlier, the engine's row had no button while the engine's circuit breaker was open."""
    scripted.status = stories.troubled()
    scripted.answers["POST", "/services/mlx_engine/start"] = {"state": "accepted"}
    page = open_page(clock=True)
    stop_clock(page)  # the page withdraws its question after 5 s
    buttons = row(page, "Engine").get_by_role("button")
    expect(buttons).to_have_text(["try now"])
    buttons.click()
    expect(buttons).to_have_text(["Really try?"])
    assert not [each for each in scripted.asked if each[0] == "POST"]
    page.clock.run_for(400)
    buttons.click()
    wait_for_request(scripted, "POST", "/services/mlx_engine/start", {})
    expect(buttons).to_have_text(["try now"])


def test_page_shows_only_a_start_button_for_a_stopped_service_and_none_for_an_absent_one(open_page, scripted):
    scripted.status = stories.status(
        ollama=stories.service("absent", process_pid=None), orchestrator=stories.service("stopped", "docker")
    )
    page = open_page()
    expect(row(page, "Orchestrator").get_by_role("button")).to_have_text(["start"])
    expect(row(page, "Ollama").get_by_role("button")).to_have_count(0)


def test_page_shows_the_error_of_a_refused_service_action_beside_its_button(page, scripted):
    page.expected = ["404 (Not Found)"]
    confirm(row(page, "Ollama").get_by_role("button", name="stop Ollama"))
    expect(row(page, "Ollama").get_by_role("alert")).to_have_text(
        "There is nothing at /services/ollama/stop."
    )


def test_page_shows_memory_warnings_and_the_actions_of_the_last_recovery_pass(open_page, scripted):
    scripted.status = stories.troubled()
    page = at_a_stopped_clock(open_page, scripted)
    machine, recovery = page.locator("#machine"), page.locator("#recovery")
    expect(machine).to_contain_text("1.0 GiB of 32.0 GiB memory available")
    expect(machine).to_contain_text("Only 1.0 GiB of memory is available")
    expect(machine.get_by_role("img")).to_have_accessible_name("97 % of the memory is in use")
    expect(recovery).to_contain_text("restarted the MLX server")
    expect(recovery).to_contain_text("not mended: Docker is not running")
    expect(recovery).to_contain_text("The next pass is in 3 min 25 s.")


def cards(page):
    return page.locator("#incidents article")


def open_for_s(card):
    """Return for how many seconds an incident has been open, as its card says."""
    found = re.search(r"open for (?:(\d+) min ?)?(?:(\d+) s)?", card.inner_text())
    assert found
    minutes, seconds = found.groups("0")
    return 60 * int(minutes) + int(seconds)


def test_page_without_incidents_says_that_there_are_none(page):
    expect(page.locator("#incidents")).to_contain_text("Nothing has gone wrong")


def test_page_shows_an_open_incident_first_with_a_running_duration_until_it_closes(open_page, scripted):
    scripted.incidents = [stories.incident(3, began_s_ago=300), stories.incident(2, began_s_ago=900)]
    page = open_page()
    expect(cards(page)).to_have_count(2)
    opened = stories.incident(
        4, began_s_ago=2, lasted_s=None, title="The engine is down", sentence="It was killed."
    )
    scripted.send_incident(opened)
    first = cards(page).first
    expect(first).to_contain_text("The engine is down")
    expect(page.get_by_role("heading", name="Incidents: 1 open")).to_be_visible()
    shown_s = open_for_s(first)
    assert shown_s >= 2
    wait_for(lambda: open_for_s(first) > shown_s)
    scripted.send_incident(
        opened | {"open": False, "ended_at": opened["began_at"] + 5, "duration_s": 5, "last_seq": 999}
    )
    expect(first).to_contain_text("5 s")
    expect(page.get_by_role("heading", name="Incidents", exact=True)).to_be_visible()


def test_page_ignores_an_older_state_of_an_incident_that_arrives_after_a_newer_one(page, scripted):
    newer = stories.incident(5, lasted_s=3.0, title="Closed again", last_seq=510)
    scripted.send_incident(newer)
    expect(cards(page).first).to_contain_text("Closed again")
    scripted.send("incident", stories.incident(5, lasted_s=None, title="Still open", last_seq=505))
    scripted.send_status(verdict="Sent after it.")
    expect(page.locator(".verdict-text")).to_have_text("Sent after it.")
    expect(cards(page).first).to_contain_text("Closed again")


def test_page_shows_counts_and_durations_of_an_incident_at_once_and_its_journal_lines_only_on_demand(
    open_page, scripted
):
    scripted.incidents = [stories.incident(7)]
    scripted.answers["GET", "/incidents/7"] = stories.incident(7) | {"entries": stories.entries(7)}
    page = open_page()
    card = cards(page).first
    for words in (
        "the breaker opened for 60 s",
        "5 restarts",
        "24 requests waited",
        "24 continued",
        "none lost",
        "1 min 19 s",
    ):
        expect(card).to_contain_text(words)
    assert not [path for _, path, _ in scripted.asked if path == "/incidents/7"]
    card.get_by_role("button", name="Show the journal's lines").click()
    expect(card.get_by_role("table")).to_contain_text("child_exited")
    expect(card.get_by_role("table")).to_contain_text("signal=9")
    card.get_by_role("button", name="Hide the journal's lines").click()
    expect(card.get_by_role("table")).to_have_count(0)


def test_page_shows_the_newest_three_incidents_with_their_lost_requests_and_more_on_demand(
    open_page, scripted
):
    lost = {"waited": 3, "continued": 2, "lost": 1}
    scripted.incidents = [stories.incident(n, began_s_ago=1000 - n, requests=lost) for n in range(9, 0, -1)]
    page = open_page()
    expect(cards(page)).to_have_count(3)
    expect(cards(page).first).to_contain_text("1 lost")
    page.get_by_role("button", name=re.compile("Show 6 more")).click()
    expect(cards(page)).to_have_count(9)
