"""The routes of the gateway and the orchestrator that the listener passes on, as a table. Pure.

The status page, which the listener serves, may call only its own origin, and identifies itself with one
cookie. So the listener passes on what this page needs, and nothing else. A path is compared as it was sent,
without decoding: one with `..`, `//`, a percent-encoded character or the name of another host fits no entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Upstream(StrEnum):
    """A service that requests are passed on to; its name is also the first part of the path."""

    GATEWAY = "gateway"
    ORCHESTRATOR = "orchestrator"


@dataclass(frozen=True)
class ProxiedRoute:
    """A route of the gateway or the orchestrator (`upstream`) that the listener passes requests on to. `{id}`
    in `path` stands for one identifier.

    `may_wait` is True if the answer has no time limit, because a model generates it, or because it reports
    the progress of a download until its end.
    """

    method: str
    upstream: Upstream
    path: str
    may_wait: bool = False


@dataclass(frozen=True)
class Target:
    """The service and the path that a request is passed on to. `path` begins with a slash and includes the
    query. `may_wait` is True if the answer has no time limit.
    """

    upstream: Upstream
    path: str
    may_wait: bool


ID = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}"
ROUTES = (
    ProxiedRoute("GET", Upstream.GATEWAY, "/api/tags"),
    ProxiedRoute("GET", Upstream.GATEWAY, "/api/ps"),
    ProxiedRoute("GET", Upstream.GATEWAY, "/health"),
    ProxiedRoute("GET", Upstream.GATEWAY, "/requests"),
    ProxiedRoute("DELETE", Upstream.GATEWAY, "/requests/{id}"),
    ProxiedRoute("POST", Upstream.GATEWAY, "/api/chat", may_wait=True),
    ProxiedRoute("POST", Upstream.GATEWAY, "/api/generate", may_wait=True),
    ProxiedRoute("POST", Upstream.GATEWAY, "/api/pull", may_wait=True),
    ProxiedRoute("POST", Upstream.GATEWAY, "/api/show"),
    ProxiedRoute("DELETE", Upstream.GATEWAY, "/api/delete"),
    ProxiedRoute("GET", Upstream.GATEWAY, "/v1/streams/{id}", may_wait=True),
    ProxiedRoute("GET", Upstream.ORCHESTRATOR, "/agents"),
    ProxiedRoute("GET", Upstream.ORCHESTRATOR, "/cycles"),
    ProxiedRoute("GET", Upstream.ORCHESTRATOR, "/health"),
    ProxiedRoute("GET", Upstream.ORCHESTRATOR, "/tasks"),
    ProxiedRoute("POST", Upstream.ORCHESTRATOR, "/tasks"),
    ProxiedRoute("GET", Upstream.ORCHESTRATOR, "/tasks/{id}"),
    ProxiedRoute("DELETE", Upstream.ORCHESTRATOR, "/tasks/{id}"),
    ProxiedRoute("GET", Upstream.ORCHESTRATOR, "/knowledge/notes"),
    ProxiedRoute("POST", Upstream.ORCHESTRATOR, "/knowledge/search"),
)


def _pattern(route: ProxiedRoute) -> re.Pattern[str]:
    literal = re.escape(f"/{route.upstream}{route.path}")
    return re.compile(literal.replace(re.escape("{id}"), ID))


QUERY = re.compile(r"[!-\"$-~]*")  # visible ASCII without `#`
PATTERNS = tuple((route, _pattern(route)) for route in ROUTES)


def find(method: str, target: str) -> Target | None:
    """Return the destination of a request, or None if no route in the table allows it.

    `target` is the path and query of the request as they were sent.
    """
    path, separator, query = target.partition("?")
    if not QUERY.fullmatch(query):
        return None
    for route, pattern in PATTERNS:
        if route.method == method and pattern.fullmatch(path):
            passed_on = path.removeprefix(f"/{route.upstream}")
            return Target(route.upstream, f"{passed_on}{separator}{query}", route.may_wait)
    return None


def methods(target: str) -> Sequence[str]:
    """Return the methods of the routes that have the path in `target`, in alphabetical order. Return an empty
    list if no route has this path.

    `target` is the path and query of a request as they were sent. The query is ignored.
    """
    path = target.partition("?")[0]
    return sorted({route.method for route, pattern in PATTERNS if pattern.fullmatch(path)})
