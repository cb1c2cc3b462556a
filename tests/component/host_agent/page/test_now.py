"""The tree of services, the machine, and the last recovery pass."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.component.host_agent.page import stories


def row(page, title):
    return page.get_by_role("row").filter(has=page.locator(".branch", has_text=title)).first


def test_services_stand_as_a_tree_below_their_parents(page):
    names = page.locator(".tree tbody tr").evaluate_all("rows => rows.map(r => r.className)")
    assert names == [
        "depth-0", "depth-1", "depth-2", "depth-1", "depth-1", "depth-2", "depth-2",
    ]  # fmt: skip
    expect(row(page, "Engine")).to_contain_text(", below Gateway")
    expect(row(page, "Nightly")).to_contain_text(", below Docker")


def test_age_counts_up_without_asking_the_agent(page, scripted):
    up = row(page, "Engine").locator("td.up")
    expect(up).to_have_text(re.compile("59 s|1 min"))
    asked = len(scripted.asked)
    expect(up).to_have_text(re.compile(r"1 min \d s"))
    assert len(scripted.asked) == asked


def test_open_breaker_counts_down_to_its_trial_and_the_last_failure_is_in_words(open_page, scripted):
    scripted.status = stories.troubled()
    page = open_page()
    engine = row(page, "Engine")
    expect(engine).to_contain_text("breaker open")
    expect(engine).to_contain_text(re.compile(r"the next trial is in 4[0-2] s\."))
    expect(engine).to_contain_text(re.compile(r"the next trial is in 3\d s\."))
    expect(engine).to_contain_text("The engine was killed by SIGKILL; its sender is unknown.")
    expect(engine.locator("td.restarts")).to_have_text("5")


def test_restart_is_asked_twice_and_a_double_click_does_not_answer(page, scripted):
    button = row(page, "Gateway").get_by_role("button", name="restart Gateway")
    button.dblclick()
    sure = row(page, "Gateway").get_by_role("button", name="Really restart?")
    expect(sure).to_be_visible()
    assert not [each for each in scripted.asked if each[0] == "POST"]
    scripted.answers["POST", "/services/mlx_server/restart"] = {"state": "accepted"}
    page.wait_for_timeout(400)
    sure.click()
    expect(row(page, "Gateway").get_by_role("button", name="restart Gateway")).to_be_enabled()
    assert ("POST", "/services/mlx_server/restart", {}) in scripted.asked


def test_stopped_service_has_only_a_start_button_and_an_absent_one_has_none(open_page, scripted):
    scripted.status = stories.status(
        ollama=stories.service("absent", process_pid=None), orchestrator=stories.service("stopped", "docker")
    )
    page = open_page()
    expect(row(page, "Orchestrator").get_by_role("button")).to_have_text(["start"])
    expect(row(page, "Ollama").get_by_role("button")).to_have_count(0)


def test_refused_action_shows_the_sentence_beside_its_button(page, scripted):
    page.expected = ["404 (Not Found)"]
    button = row(page, "Ollama").get_by_role("button", name="stop Ollama")
    button.click()
    page.wait_for_timeout(400)
    row(page, "Ollama").get_by_role("button", name="Really stop?").click()
    expect(row(page, "Ollama").get_by_role("alert")).to_have_text(
        "There is nothing at /services/ollama/stop."
    )


def test_machine_shows_its_memory_and_warnings_and_the_pass_what_it_did(open_page, scripted):
    scripted.status = stories.troubled()
    page = open_page()
    machine, recovery = page.locator("#machine"), page.locator("#recovery")
    expect(machine).to_contain_text("1.0 GiB of 32.0 GiB memory available")
    expect(machine).to_contain_text("Only 1.0 GiB of memory is available")
    expect(machine.get_by_role("img")).to_have_accessible_name("97 % of the memory is in use")
    expect(recovery).to_contain_text("restarted the MLX server")
    expect(recovery).to_contain_text("not mended: Docker is not running")
    expect(recovery).to_contain_text(re.compile(r"The next pass is in 3 min 2\d s\."))
