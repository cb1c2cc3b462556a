"""The table of proxied routes: no path outside it is passed on, however the path is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.listener.proxy import proxied_routes
from host_agent.listener.proxy.proxied_routes import ROUTES, Target, Upstream


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.upstream}{route.path}")
def test_find_proxied_route_returns_the_destination_of_a_listed_route_with_its_query(route):
    path = route.path.replace("{id}", "a-1.b_2")
    found = proxied_routes.find(route.method, f"/{route.upstream}{path}?from=3&x=%2e%2e/")
    assert found == Target(route.upstream, f"{path}?from=3&x=%2e%2e/", route.may_wait)


@pytest.mark.parametrize(
    "target",
    [
        "/gateway",
        "/gateway/",
        "/gateway/api/tags/",
        "/gateway//api/tags",
        "//gateway/api/tags",
        "/gateway/api/../api/tags",
        "/gateway/requests/..",
        "/gateway/requests/.",
        "/gateway/v1/streams/../../api/delete",
        "/gateway/v1/streams/%2e%2e%2fhealth",
        "/gateway/v1/streams/..%2Fhealth",
        "/gateway/v1/streams/a%2Fb",
        "/gateway/v1/streams/a/records",
        "/gateway/%61pi/tags",
        "/gateway/api/tags%00",
        "/gateway/api/tags\\..",
        "/gateway/@evil.example/api/tags",
        "/gateway/http://evil.example/",
        "http://evil.example/gateway/api/tags",
        "http://127.0.0.1:9099/gateway/api/tags",
        "/gateway/api/tags?a=b c",
        "/gateway/api/tags?a=\u00e4",
        "/gateway/api/tags#x?",
        "/gateway/api/tags?a#b",
        "/gateway/requests/" + "x" * 201,
        "/gateway/requests/a\n",
        "/gateway/events",
        "/gateway/openapi.json",
        "/orchestrator/api/tags",
        "/orchestrator/tasks/",
        "/other/health",
    ],
)
def test_find_proxied_route_returns_none_for_a_path_that_is_not_listed(target):
    assert proxied_routes.find("GET", target) is None
    assert not proxied_routes.methods(target) or "?" in target


def test_proxied_methods_returns_the_http_methods_of_a_listed_path():
    assert proxied_routes.find("PUT", "/orchestrator/tasks/x") is None
    assert proxied_routes.find("get", "/gateway/health") is None
    assert proxied_routes.methods("/orchestrator/tasks/x?a") == ["DELETE", "GET"]


@given(st.sampled_from(["GET", "POST", "DELETE"]), st.sampled_from(list(Upstream)), st.text())
def test_find_proxied_route_never_returns_a_destination_outside_the_listed_paths(method, upstream, rest):
    found = proxied_routes.find(method, f"/{upstream}/{rest}")
    if found is not None:
        parts = found.path.partition("?")[0].split("/")
        assert found.path.isascii()
        assert parts[0] == ""
        assert all(part.strip(".") for part in parts[1:])
