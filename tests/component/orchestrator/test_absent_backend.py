"""An Ollama that is not installed is posted to the recovery webhook once, and then no longer counts as a
fault.

Before, the status stayed "degraded", each cycle reported "ollama down", and posts were sent at 0, 5, 15, 35
and 75 s.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.component.orchestrator.conftest import TOKEN, Orchestrator, StandIn, call, phase, wait_until

Make = Callable[..., Orchestrator]
Start = Callable[..., StandIn]


def health(one: Orchestrator) -> dict:
    return call(f"{one.url}/health")[1]


def rounds(one: Orchestrator, more: int) -> None:
    """Wait until the health monitor has made `more` further checks."""

    def checks() -> float:
        lines = one.ask("/metrics")[1].splitlines()
        return float(
            next(x for x in lines if x.startswith("vestal_orchestrator_health_checks_total ")).split()[1]
        )

    begun = checks()
    wait_until("the monitor checks again", lambda: checks() >= begun + more)


def start(orchestrator: Make, mlx: StandIn, hook: StandIn, ollama_port: int) -> Orchestrator:
    return orchestrator(
        MLX_API_URL=mlx.url,
        OLLAMA_BASE_URL=f"http://127.0.0.1:{ollama_port}",
        RECOVERY_WEBHOOK_URL=f"{hook.url}/recover",
        ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="0.1",
        ORCHESTRATOR_CYCLE_INTERVAL="0.5",
    ).start()


def test_backend_that_never_answered_is_reported_to_the_webhook_once_and_is_absent_until_it_answers(
    orchestrator: Make, llm: StandIn, children: Start, free_port: Callable[[], int]
):
    hook, port = children("webhook_listener.py", "--token", TOKEN), free_port()
    hook.control(retry_after_s=2)  # a cycle and the monitor may report the same outage one after the other
    one = start(orchestrator, llm, hook, port)

    cycle = one.cycle("ollama: absent (never seen)")
    assert "down" not in phase(cycle, "health")["why"]
    rounds(one, 40)  # which take longer than the listener's pause
    assert [post["body"]["ollama"] for post in hook.posts()] == [False]  # the first outage is always posted
    assert hook.posts()[0]["body"]["mlx"] is True
    assert health(one)["status"] == "ok"
    assert health(one)["absent"] == ["ollama"]

    ollama = children("fake_llm.py", port=port)  # Ollama was installed in the meantime
    wait_until("it is seen", lambda: health(one)["backends"]["ollama"])
    assert health(one)["absent"] == []
    ollama.end()
    wait_until("it counts as down from now on", lambda: health(one)["status"] == "degraded")
    wait_until("the outage is posted", lambda: len(hook.posts()) >= 2)  # and again each 2 s
    one.cycle("ollama down")


def test_backend_that_never_answered_degrades_health_until_the_webhook_accepts_the_outage_report(
    orchestrator: Make, llm: StandIn, children: Start, free_port: Callable[[], int]
):
    hook = children("webhook_listener.py", "--token", TOKEN)
    hook.control(status=500)
    one = start(orchestrator, llm, hook, free_port())
    wait_until("the outage is posted", hook.posts)
    rounds(one, 3)
    assert health(one)["status"] == "degraded"
    hook.control(status=202)
    wait_until("the host has heard", lambda: health(one)["status"] == "ok")


def test_backend_that_answers_errors_or_is_the_mlx_server_never_counts_as_absent(
    orchestrator: Make, llm: StandIn, children: Start, free_port: Callable[[], int]
):
    hook, sick = children("webhook_listener.py", "--token", TOKEN), children("fake_llm.py")
    sick.control(mode="error")
    one = orchestrator(
        MLX_API_URL=f"http://127.0.0.1:{free_port()}",
        OLLAMA_BASE_URL=llm.url,
        RECOVERY_WEBHOOK_URL=f"{hook.url}/recover",
        ORCHESTRATOR_HEALTH_MONITOR_INTERVAL="0.1",
    ).start()
    wait_until("the outage is posted", hook.posts)
    rounds(one, 3)
    assert (health(one)["status"], health(one)["absent"]) == ("degraded", [])
    other = start(orchestrator, llm, hook, int(sick.url.rpartition(":")[2]))
    wait_until("another outage is posted", lambda: len(hook.posts()) >= 2)
    rounds(other, 3)
    assert (health(other)["status"], health(other)["absent"]) == ("degraded", [])
