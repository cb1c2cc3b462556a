"""The cards of incidents."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.component.host_agent.page import stories


def cards(page):
    return page.locator("#incidents article")


def test_page_without_incidents_says_so(page):
    expect(page.locator("#incidents")).to_contain_text("Nothing has gone wrong")


def test_incident_opens_above_the_others_runs_and_closes(open_page, scripted):
    scripted.incidents = [stories.incident(3, began_s_ago=300), stories.incident(2, began_s_ago=900)]
    page = open_page()
    expect(cards(page)).to_have_count(2)
    opened = stories.incident(
        4, began_s_ago=2, lasted_s=None, title="The engine is down", sentence="It was killed."
    )
    scripted.send_incident(opened)
    first = cards(page).first
    expect(first).to_contain_text("The engine is down", timeout=1000)
    expect(page.get_by_role("heading", name="Incidents: 1 open")).to_be_visible()
    expect(first).to_contain_text(re.compile(r"open for [45] s"))
    scripted.send_incident(
        opened | {"open": False, "ended_at": opened["began_at"] + 5, "duration_s": 5, "last_seq": 999}
    )
    expect(first).to_contain_text("5 s", timeout=1000)
    expect(page.get_by_role("heading", name="Incidents", exact=True)).to_be_visible()


def test_older_form_of_an_incident_does_not_replace_a_newer_one(page, scripted):
    newer = stories.incident(5, lasted_s=3.0, title="Closed again", last_seq=510)
    scripted.send_incident(newer)
    expect(cards(page).first).to_contain_text("Closed again")
    scripted.send("incident", stories.incident(5, lasted_s=None, title="Still open", last_seq=505))
    scripted.send_status(verdict="Sent after it.")
    expect(page.locator(".verdict-text")).to_have_text("Sent after it.")
    expect(cards(page).first).to_contain_text("Closed again")


def test_incident_shows_its_story_figures_and_its_raw_lines_on_demand(open_page, scripted):
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
    assert page.accessibility_faults() == []
    card.get_by_role("button", name="Hide the journal's lines").click()
    expect(card.get_by_role("table")).to_have_count(0)


def test_lost_requests_are_said_and_only_the_newest_incidents_are_shown_at_first(open_page, scripted):
    lost = {"waited": 3, "continued": 2, "lost": 1}
    scripted.incidents = [stories.incident(n, began_s_ago=1000 - n, requests=lost) for n in range(9, 0, -1)]
    page = open_page()
    expect(cards(page)).to_have_count(3)
    expect(cards(page).first).to_contain_text("1 lost")
    page.get_by_role("button", name=re.compile("Show 6 more")).click()
    expect(cards(page)).to_have_count(9)
