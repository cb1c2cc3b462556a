"""A backend that was never seen is absent and not down; a refused connection differs from other failures."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from orchestrator.cycles.plan import CycleFacts, down, health_sentence
from orchestrator.llm.backend import Backend
from orchestrator.llm.check import is_unreachable
from orchestrator.llm.presence import Presence
from orchestrator.recovery_webhook.policy import ABSENT_PAUSE_S, ListenerAnswer, ReportPace

MLX = Backend("mlx", used=True, healthy=True)
OLLAMA = Backend("ollama", used=True, healthy=False, detail="refused", unreachable=True)
POSTED = Presence().after_post(("mlx", "ollama"))


def absent(presence: Presence, *backends: Backend) -> list[str]:
    return [b.name for b in presence.judged(backends) if b.absent]


def test_backend_never_seen_healthy_counts_as_absent_once_its_outage_was_reported():
    assert absent(Presence(), MLX, OLLAMA) == []
    assert absent(POSTED, MLX, OLLAMA) == ["ollama"]


@pytest.mark.parametrize(
    "backends",
    [
        (replace(MLX, healthy=False), OLLAMA),  # no backend serves, so none counts as absent
        (MLX, replace(OLLAMA, unreachable=False)),  # a server listens, but is unhealthy
        (MLX, replace(OLLAMA, used=False)),
        (MLX, replace(OLLAMA, healthy=True, unreachable=False)),
        (replace(MLX, healthy=False, unreachable=True), replace(OLLAMA, healthy=True, unreachable=False)),
    ],
)
def test_backend_does_not_count_as_absent_if_reachable_unused_or_if_no_other_backend_is_healthy(
    backends: tuple[Backend, ...],
):
    assert absent(POSTED, *backends) == []


def test_backend_seen_healthy_once_never_counts_as_absent_again():
    seen = POSTED.after_check((MLX, replace(OLLAMA, healthy=True)))
    assert absent(seen.after_check((MLX, OLLAMA)), MLX, OLLAMA) == []


def test_absent_mark_of_a_backend_is_dropped_when_the_only_other_backend_becomes_unhealthy():
    marked = POSTED.judged((MLX, OLLAMA))
    assert absent(POSTED, replace(MLX, healthy=False), marked[1]) == []


def test_health_sentence_names_an_absent_backend_as_absent_and_not_as_down():
    facts = CycleFacts(POSTED.judged((MLX, OLLAMA)), "chat", "embed")
    assert down(facts) == ()
    assert health_sentence(facts) == "all healthy; ollama: absent (never seen)"
    assert health_sentence(CycleFacts((MLX, OLLAMA), "chat", "embed")) == "ollama down"


def test_outage_reports_for_an_absent_backend_are_posted_once_an_hour():
    pace, posts = ReportPace().after(ListenerAnswer(202), 0.0, ("ollama",), 300), []
    for now in range(0, 4 * 3600, 15):
        pace = pace.seen(())
        if pace.may_post(float(now), (), ("ollama",)):
            posts.append(now)
            pace = pace.after(ListenerAnswer(202), float(now), (), 300)
    assert posts == [3600, 7200, 10800]


def test_outage_report_of_a_backend_is_posted_at_once_although_another_backend_is_absent():
    pace = ReportPace().after(ListenerAnswer(202), 0.0, ("ollama",), 300).seen(())
    assert not pace.may_post(1.0, (), ("ollama",))
    assert pace.may_post(1.0, ("mlx",), ("ollama",))
    assert pace.after(ListenerAnswer(202), 1.0, ("mlx",), 300).absent_due_at == 1.0 + ABSENT_PAUSE_S


def test_absent_backend_is_not_reported_again_before_the_retry_after_time_of_a_refusal_has_passed():
    pace = ReportPace().after(ListenerAnswer(429, retry_after_s=7200), 0.0, ("ollama",), 300).seen(())
    assert not pace.may_post(ABSENT_PAUSE_S, (), ("ollama",))


def connector(error: OSError, kind: Any = aiohttp.ClientConnectorError) -> Exception:
    key: Any = SimpleNamespace(host="h", port=1, ssl=True, is_ssl=False)
    return kind(key, error)


@pytest.mark.parametrize(
    ("error", "unreachable"),
    [
        (connector(ConnectionRefusedError(errno.ECONNREFUSED, "refused")), True),
        (
            connector(
                OSError(f"Multiple exceptions: [Errno 0] no net, [Errno {errno.ECONNREFUSED}] refused")
            ),
            True,
        ),
        (connector(socket.gaierror(-2, "unknown"), aiohttp.ClientConnectorDNSError), True),
        (connector(OSError(errno.EHOSTUNREACH, "no route")), False),
        (aiohttp.ServerDisconnectedError(), False),
        (ConnectionResetError(errno.ECONNRESET, "reset"), False),
        (TimeoutError(), False),
    ],
)
def test_backend_is_unreachable_only_after_a_refused_connection_or_unknown_host(
    error: Exception, unreachable: bool
):
    assert is_unreachable(error) is unreachable
