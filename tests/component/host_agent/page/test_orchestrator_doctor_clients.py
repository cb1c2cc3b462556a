"""The page's orchestrator, doctor and clients; and the accessibility and width of all sections."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.component.host_agent.page import section_answers as answers
from tests.component.host_agent.page.section_helpers import (
    bodies,
    confirm,
    stop_clock,
    wait_for_request,
)

SECTIONS = ("requests", "models", "chat", "orchestrator", "doctor", "clients")


def panel(page, title):
    return page.get_by_role("region", name=title, exact=True)


def test_page_follows_a_new_task_while_it_runs_and_then_shows_its_answer_and_sources(open_page, scripted):
    scripted.answers |= answers.orchestrator(cycles=(answers.cycle(),))
    scripted.answers["POST", "/orchestrator/tasks"] = {"id": "task-1"}
    running = {"state": "running", "finished_at": None, "answer": None}
    step = {"name": "plan", "state": "running", "detail": "asks the lead"}
    scripted.answers["GET", "/orchestrator/tasks/task-1"] = answers.whole_task(
        1, **running, answers=[], sources=[], notes=[], steps=[step]
    )
    page = open_page("#orchestrator")
    tasks = panel(page, "Tasks")
    expect(tasks).to_contain_text("No task yet.")
    tasks.get_by_label("New task").fill("Compare the herons.")
    tasks.get_by_label("reader").check()
    scripted.answers |= answers.orchestrator(answers.task(1, state="queued", finished_at=None))
    tasks.get_by_role("button", name="Start it").click()
    expect(tasks).to_contain_text("running plan asks the lead")
    # The list shows the newest state, not the first one.
    expect(tasks.locator(".task-head")).to_contain_text("running")
    assert bodies(scripted, "POST", "/orchestrator/tasks") == [
        {"goal": "Compare the herons.", "agents": ["reader"]}
    ]
    scripted.answers |= answers.orchestrator(answers.task(1), cycles=(answers.cycle(),))
    scripted.answers["GET", "/orchestrator/tasks/task-1"] = answers.whole_task(1)
    expect(tasks).to_contain_text("The grey heron eats first, at dawn.")
    expect(tasks).to_contain_text("reader: birds.md › Birds > Heron score 0.87")
    expect(tasks.get_by_role("button", name="Cancel")).to_have_count(0)


def test_page_cancels_a_task_after_confirmation(open_page, scripted):
    scripted.answers |= answers.orchestrator(answers.task(1, state="queued", finished_at=None))
    scripted.answers["DELETE", "/orchestrator/tasks/task-1"] = {"id": "task-1", "state": "cancelled"}
    page = open_page("#orchestrator")
    cancel = panel(page, "Tasks").get_by_role("button", name="Cancel the task")
    expect(cancel).to_be_visible()
    scripted.answers |= answers.orchestrator(answers.task(1, state="cancelled"))
    confirm(cancel)
    wait_for_request(scripted, "DELETE", "/orchestrator/tasks/task-1")
    expect(panel(page, "Tasks")).to_contain_text("cancelled")


def test_page_shows_why_cycle_phases_were_skipped_and_what_each_knowledge_folder_contains(
    open_page, scripted
):
    scripted.answers |= answers.orchestrator(cycles=tuple(map(answers.cycle, range(1, 9))))
    page = open_page("#orchestrator")
    cycles, knowledge = panel(page, "Cycles"), panel(page, "Knowledge")
    expect(cycles).to_contain_text("knowledge skippedno healthy backend serves embeddings")
    expect(cycles).to_contain_text("ollama: down")
    expect(cycles.locator("tbody tr")).to_have_count(5)
    cycles.get_by_role("button", name="Show all 8").click()
    expect(cycles.locator("tbody tr")).to_have_count(8)
    expect(knowledge).to_contain_text("reader2 files, 14 passagesBirds of the marsh: what they eat and when.")
    expect(knowledge).to_contain_text("No note yet")


def test_page_search_shows_passages_with_scores_and_sources_or_the_error(open_page, scripted):
    scripted.answers |= answers.orchestrator()
    result = {"agent": "reader", "file": "birds.md", "heading": "Heron", "score": 0.912, "similarity": None}
    scripted.answers["POST", "/orchestrator/knowledge/search"] = {
        "results": [result | {"text": answers.HOSTILE + " long " * 100}],
        "by": ["words"],
        "note": "found by words alone: the query was not embedded",
    }
    page = open_page("#orchestrator")
    search = panel(page, "Search")
    search.get_by_role("searchbox").fill("heron")
    search.get_by_label("Agent", exact=True).select_option("reader")
    search.get_by_role("searchbox").press("Enter")
    expect(search).to_contain_text("1 passage, found by words. found by words alone")
    expect(search).to_contain_text("reader › birds.md › Heronscore 0.91")
    expect(search).to_contain_text(answers.HOSTILE)
    search.get_by_role("button", name="More").click()
    expect(search.get_by_role("button", name="Less")).to_be_focused()
    body = {"query": "heron", "k": 8, "agent": "reader"}
    assert bodies(scripted, "POST", "/orchestrator/knowledge/search") == [body]
    scripted.answers["POST", "/orchestrator/knowledge/search"] = lambda _: answers.refusal(
        404, "No agent 'reader'."
    )
    page.expected.append("404")
    search.get_by_role("button", name="Search").click()
    expect(search.get_by_role("alert")).to_have_text("No agent 'reader'.")


def test_page_orchestrator_section_shows_one_sentence_if_the_orchestrator_is_unreachable(open_page, scripted):
    why = "The orchestrator cannot be reached: nothing listens there; `vestal status` says why."
    for path in ("tasks", "cycles", "knowledge/notes", "agents"):
        scripted.answers["GET", f"/orchestrator/{path}"] = lambda _: answers.refusal(502, why)
    page = open_page("#orchestrator")
    page.expected.append("502")
    expect(page.get_by_role("alert")).to_have_text(why)


def test_page_orchestrator_section_shows_html_in_a_task_as_text_and_survives_missing_fields(
    open_page, scripted
):
    odd = {"id": "t", "goal": answers.HOSTILE, "state": "pondering"} | dict.fromkeys(("agents", "created_at"))
    scripted.answers |= answers.orchestrator(odd, cycles=({"id": 1, "phases": None, "backends": None},))
    scripted.answers["GET", "/orchestrator/agents"] = None  # an older orchestrator has no such route
    page = open_page("#orchestrator")
    page.expected.append("404")
    expect(panel(page, "Tasks")).to_contain_text(answers.HOSTILE)
    expect(panel(page, "Tasks")).to_contain_text("pondering")
    expect(panel(page, "Knowledge")).to_contain_text("reader")


def test_page_doctor_section_lists_faults_first_and_its_button_runs_the_remedy(open_page, scripted):
    scripted.answers["GET", "/doctor"] = answers.usual_report()
    scripted.answers["POST", "/services/mlx_server/restart"] = {"state": "accepted"}
    scripted.answers["GET", "/clients"] = answers.clients()
    page = open_page("#doctor")
    page.get_by_role("button", name="Run the doctor").click()
    findings = panel(page, "Doctor").locator(".finding")
    expect(findings.nth(0)).to_contain_text("fault engineThe engine was killed three times within a minute.")
    expect(findings.nth(0)).to_contain_text("Remedy: Restart the MLX server.")
    expect(findings.nth(1)).to_contain_text("note sleep")
    findings.nth(0).get_by_text("Evidence").click()
    expect(findings.nth(0).get_by_text("05:23:59 mlx_engine child_exited")).to_be_visible()
    expect(findings.nth(2)).to_be_hidden()
    page.get_by_text("1 check in order").click()
    expect(findings.nth(2)).to_be_visible()
    page.get_by_role("button", name="Restart the MLX server: engine").click()
    wait_for_request(scripted, "POST", "/services/mlx_server/restart")
    expect(findings.nth(0)).to_contain_text("It has begun. Run the doctor again to see whether it helped.")
    page.get_by_role("link", name="Clients").click()
    page.get_by_role("link", name="Doctor").click()
    expect(page.get_by_role("button", name="Run it again")).to_be_visible()


def test_page_clients_section_shows_the_setup_lines_of_each_program_and_copies_them(open_page, scripted):
    scripted.answers["GET", "/clients"] = answers.clients()
    page = open_page("#clients", clock=True)
    page.tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(panel(page, "Clients")).to_contain_text("fits qwen3.5:9b")
    expect(panel(page, "Clients")).to_contain_text("does not fit")
    stop_clock(page)  # the button says so for 2 s
    page.get_by_role("button", name="Copy the lines for Claude Code").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    copied = page.tab.evaluate("navigator.clipboard.readText()")
    assert copied == "\n".join(answers.clients()["clients"][0]["lines"])


def test_page_sections_on_a_narrow_screen_do_not_overflow_and_have_no_accessibility_fault(
    open_page, scripted
):
    requests = answers.request(1, model=answers.LONG_NAME), answers.request(2, phase="parked")
    tasks = answers.task(1), answers.task(2, state="running", goal=answers.HOSTILE * 9)
    scripted.requests = answers.frame(*requests)
    scripted.answers |= answers.usual_models() | answers.orchestrator(*tasks, cycles=(answers.cycle(),))
    scripted.answers |= {("GET", "/doctor"): answers.usual_report(), ("GET", "/clients"): answers.clients()}
    page = open_page(size=(375, 800), dark=True)
    for name in SECTIONS:
        page.get_by_role("link", name=name.capitalize()).click()
        expect(page.locator("main section").first).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        expect(page.get_by_text("Asking the")).to_have_count(0)
        if name == "doctor":
            page.get_by_role("button", name="Run the doctor").click()
            expect(page.locator(".finding").first).to_be_visible()
        assert page.accessibility_faults() == [], name
        widths = page.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], name
