"""The frame of the page: verdict, navigation, the closed state, and an agent that goes and comes back."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.component.host_agent.page import stories


def verdict(page):
    return page.locator(".verdict-text")


def test_verdict_follows_the_status(page, scripted):
    expect(verdict(page)).to_have_text("All services are healthy.")
    scripted.send_status(**stories.troubled())
    expect(verdict(page)).to_have_text("The engine is down and is tried again soon; Docker is not running.")
    expect(page.tab).to_have_title("⚠ Vestal")
