"""Which requests are admitted, by Host, Origin, token, size and content type, from raw headers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestal.web.guard import LOCAL_NAMES, Policy, RequestHead, admitted_origin, check
from vestal.web.origins import OriginRules

POLICY = Policy(token=b"secret", token_hint="it is in the file.", max_body_bytes=100)
BROWSERS = dataclasses.replace(POLICY, origins=OriginRules(LOCAL_NAMES))
JSON = {"Content-Type": "application/json", "Content-Length": "2"}


def code(
    *more: tuple[bytes, bytes],
    policy: Policy = POLICY,
    method: str = "GET",
    path: str = "/status",
    host: str | None = "localhost",
    token: str | None = "Bearer secret",
    address: str = "127.0.0.1",
    version: str = "1.1",
    headers: Mapping[str, str] | None = None,
) -> str | None:
    """Return the code of the refusal, or None if the request is admitted."""
    named = {"Host": host, "Authorization": token, **(headers or {})}
    raw = [(n.encode(), v.encode("latin-1")) for n, v in named.items() if v is not None]
    refusal = check(RequestHead(method, path, (*raw, *more), address, version), policy)
    return refusal.code if refusal else None


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:9", "[::1]:9", "host.docker.internal", "LOCALHOST."]
)
def test_request_with_a_host_name_of_this_machine_is_admitted(host: str):
    assert code(host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "", "["]
)
def test_request_with_a_foreign_host_name_is_forbidden_even_on_open_paths(host: str):
    assert code(host=host) == "forbidden"
    assert code(host=host, path="/health") == "forbidden"


def test_request_with_a_host_equal_to_the_connections_address_is_admitted():
    assert code(host="192.0.2.7:11435", address="192.0.2.7") is None
    assert code(host="192.0.2.7:11435", address="192.0.2.8") == "forbidden"


def test_request_without_exactly_one_host_header_is_invalid():
    assert code(host=None) == "invalid_request"
    assert code((b"host", b"localhost")) == "invalid_request"


def test_request_with_a_host_name_below_an_allowed_suffix_is_admitted():
    policy = dataclasses.replace(POLICY, host_suffixes=(".local", ".internal"))
    assert code(policy=policy, host="mybox.local:11435") is None
    assert code(policy=policy, host="HOST.CONTAINERS.INTERNAL.") is None
    for host in ("mybox.local.evil.example", "local", "mybox-local", "evil.example"):
        assert code(policy=policy, host=host) == "forbidden"
    assert code(host="mybox.local") == "forbidden"


def test_request_by_http_1_0_without_a_host_is_admitted_only_if_the_policy_allows_it():
    """Simple probes speak HTTP/1.0, which has no Host; browsers never do."""
    policy = dataclasses.replace(BROWSERS, admits_hostless=True)
    assert code(policy=policy, host=None, version="1.0") is None
    assert code(policy=policy, host="evil.example", version="1.0") == "forbidden"
    assert (
        code(policy=policy, host=None, version="1.0", headers={"Origin": "http://evil.example"})
        == "forbidden"
    )
    assert code(policy=policy, host=None) == "invalid_request"
    assert code(host=None, version="1.0") == "invalid_request"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:9099", None),
        ("HTTP://LOCALHOST:9099", None),
        ("http://localhost", "forbidden"),
        ("http://localhost:3000", "forbidden"),
        ("https://localhost:9099", "forbidden"),
        ("http://evil.example", "forbidden"),
        ("null", "forbidden"),
        ("", "forbidden"),
    ],
)
def test_request_from_another_web_page_is_forbidden_if_only_own_pages_are_admitted(
    origin: str, expected: str | None
):
    assert code(host="localhost:9099", headers={"Origin": origin}) == expected
    assert code(host="localhost:9099", headers={"Origin": origin}, path="/health") == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:3000", None),
        ("https://127.0.0.1", None),
        ("http://[::1]:8080", None),
        ("http://localhost.evil.example", "forbidden"),
        ("https://evil.example", "forbidden"),
        ("null", "forbidden"),
        ("file://", "forbidden"),
        ("http://[", "forbidden"),
        ("localhost", "forbidden"),
    ],
)
def test_request_from_a_web_page_of_this_machine_is_admitted_if_the_policy_allows_it(
    origin: str, expected: str | None
):
    assert code(policy=BROWSERS, headers={"Origin": origin}) == expected


def test_admitted_origin_is_the_single_origin_header_if_the_origin_rules_allow_it_and_none_otherwise():
    def admitted(policy: Policy, *origins: bytes) -> bytes | None:
        headers = [(b"Origin", origin) for origin in origins]
        return admitted_origin(RequestHead("GET", "/", headers, "127.0.0.1"), policy)

    assert admitted(BROWSERS, b"http://localhost:3000") == b"http://localhost:3000"
    assert admitted(BROWSERS, b"http://evil.example") is None
    assert admitted(BROWSERS, b"http://localhost", b"http://localhost") is None
    assert admitted(BROWSERS) is None
    assert admitted(POLICY, b"http://localhost") is None


def test_request_from_a_forbidden_web_page_is_answered_with_the_way_to_admit_the_page():
    policy = dataclasses.replace(BROWSERS, origin_hint="; add it to the setting")
    head = RequestHead(
        "GET", "/", [(b"host", b"localhost"), (b"origin", b"https://chat.example")], "127.0.0.1"
    )
    refusal = check(head, policy)
    assert refusal is not None
    assert refusal.message == (
        "Pages of the Origin 'https://chat.example' may not use this service; add it to the setting."
    )


def test_request_with_two_origin_headers_is_forbidden():
    assert (
        code((b"origin", b"http://localhost"), policy=BROWSERS, headers={"Origin": "http://localhost"})
        == "forbidden"
    )


@pytest.mark.parametrize("token", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_request_with_the_right_token_is_admitted(token: str):
    assert code(token=token) is None


@pytest.mark.parametrize(
    "token", [None, "", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret", "secret"]
)
def test_request_with_a_wrong_or_missing_token_is_unauthorized(token: str | None):
    assert code(token=token) == "unauthorized"
    assert code(token=token, policy=dataclasses.replace(POLICY, token=b"")) == "unauthorized"


def test_unauthorized_answer_says_where_the_token_is_stored_but_never_contains_the_token():
    for headers in ([], [(b"authorization", b"Bearer x")], [(b"authorization", b"Bearer secret")] * 2):
        refusal = check(RequestHead("GET", "/", [(b"host", b"localhost"), *headers], "::1"), POLICY)
        assert refusal is not None and refusal.status == 401
        assert "it is in the file." in refusal.message
        assert "secret" not in refusal.message
        assert refusal.headers() == {"WWW-Authenticate": "Bearer"}


def test_request_with_two_authorization_headers_is_unauthorized_even_if_both_are_right():
    assert code((b"Authorization", b"Bearer secret")) == "unauthorized"


def test_request_to_an_open_path_needs_no_token_if_it_only_reads():
    assert code(path="/health", token=None) is None
    assert code(path="/health", token=None, method="HEAD") is None
    assert code(path="/health", token=None, method="POST") == "unauthorized"
    assert code(path="/health/", token=None) == "unauthorized"
    policy = dataclasses.replace(POLICY, open_prefixes=("/assets/",))
    assert code(policy=policy, path="/assets/x/y.js", token=None) is None
    assert code(policy=policy, path="/assets/x", token=None, host="evil.example") == "forbidden"
    assert code(policy=policy, path="/assets/x", token=None, method="POST") == "unauthorized"
    for path in ("/assets", "/assetsx", "/status", "/x/assets/"):
        assert code(policy=policy, path=path, token=None) == "unauthorized"


def test_request_without_a_token_is_admitted_only_at_addresses_that_the_policy_exempts():
    policy = dataclasses.replace(POLICY, needs_token=lambda address: address != "127.0.0.1")
    assert code(policy=policy, token=None) is None
    assert code(policy=policy, token=None, address="::2") == "unauthorized"


def test_request_with_the_right_key_in_the_api_key_header_is_admitted_unless_its_bearer_token_is_wrong():
    policy = dataclasses.replace(POLICY, key_header=b"x-api-key")
    assert code(policy=policy, token=None, headers={"X-API-Key": "secret"}) is None
    assert code(policy=policy, token="Basic eDp5", headers={"X-API-Key": "secret"}) is None
    assert code(policy=policy, token="Bearer wrong", headers={"X-API-Key": "secret"}) == "unauthorized"
    assert code(policy=policy, token=None, headers={"X-API-Key": "wrong"}) == "unauthorized"
    assert code(token=None, headers={"X-API-Key": "secret"}) == "unauthorized"


def test_request_with_a_valid_session_cookie_needs_no_token():
    policy = dataclasses.replace(POLICY, cookie_name=b"vestal", has_session=lambda session: session == "s3")
    assert code(policy=policy, token=None, headers={"Cookie": "a=b; vestal=s3"}) is None
    assert code(policy=policy, token=None, headers={"Cookie": "a=b; vestal=s4"}) == "unauthorized"
    assert code(policy=policy, token=None, headers={"Cookie": "avestal=s3"}) == "unauthorized"
    assert code(policy=policy, token="Bearer wrong", headers={"Cookie": "vestal=s3"}) == "unauthorized"
    assert code(token=None, headers={"Cookie": "vestal=s3"}) == "unauthorized"


def test_post_request_authorized_by_a_session_cookie_needs_the_json_content_type_even_without_a_body():
    policy = dataclasses.replace(POLICY, cookie_name=b"vestal", has_session=lambda session: True)
    cookie = {"Cookie": "vestal=s3"}
    no_body = code(policy=policy, method="POST", token=None, headers=cookie)
    assert no_body == "unsupported_media_type"
    assert code(policy=policy, method="POST", token=None, headers={**cookie, **JSON}) is None
    assert code(policy=policy, method="POST", headers=cookie) is None


def test_preflight_request_of_an_admitted_page_needs_no_token():
    assert code(policy=BROWSERS, method="OPTIONS", token=None, headers={"Origin": "http://localhost"}) is None
    assert (
        code(policy=BROWSERS, method="OPTIONS", token=None, headers={"Origin": "http://evil.example"})
        == "forbidden"
    )
    assert code(policy=BROWSERS, method="OPTIONS", token=None) == "unauthorized"
    assert code(method="OPTIONS", token=None, headers={"Origin": "http://localhost"}) == "unauthorized"


@pytest.mark.parametrize(
    ("length", "expected"), [("100", None), ("101", "too_large"), ("9" * 5000, "too_large")]
)
def test_request_with_a_declared_length_over_the_limit_is_refused_as_too_large(
    length: str, expected: str | None
):
    assert code(method="POST", headers={**JSON, "Content-Length": length}) == expected
    no_limit = dataclasses.replace(POLICY, max_body_bytes=None)
    assert code(policy=no_limit, method="POST", headers={**JSON, "Content-Length": length}) is None


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", None),
        ("Application/JSON; charset=utf-8", None),
        ("text/plain", "unsupported_media_type"),
        ("application/x-www-form-urlencoded", "unsupported_media_type"),
        ("multipart/form-data; boundary=x", "unsupported_media_type"),
        ("text/plain;application/json", "unsupported_media_type"),
        ("application/jsonp", "unsupported_media_type"),
        ("", "unsupported_media_type"),
        (None, "unsupported_media_type"),
    ],
)
def test_request_with_a_body_not_declared_as_json_is_refused(content_type: str | None, expected: str | None):
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert code(method="POST", headers={"Content-Length": "2", **headers}) == expected
    assert code(method="POST", headers={"Transfer-Encoding": "chunked", **headers}) == expected
    any_type = dataclasses.replace(POLICY, json_only=False)
    assert code(policy=any_type, method="POST", headers={"Content-Length": "2", **headers}) is None


def test_post_request_without_a_body_needs_no_content_type():
    assert code(method="POST") is None
    assert code(method="POST", headers={"Content-Length": "0"}) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b"Host", b"Origin", b"Authorization", b"Cookie", b"Content-Type", b"Content-Length"]
            )
            | st.binary(),
            st.binary() | st.binary().map(b"Bearer ".__add__) | st.binary().map(b"vestal=".__add__),
        )
    ),
    st.sampled_from(["GET", "POST", "OPTIONS"]),
    st.booleans(),
)
def test_request_with_arbitrary_header_bytes_and_no_valid_token_is_refused_with_a_4xx_status(
    headers, method, browsers
):
    policy = dataclasses.replace(BROWSERS if browsers else POLICY, cookie_name=b"vestal")
    refusal = check(RequestHead(method, "/status", headers, "127.0.0.1"), policy)
    if refusal is None:
        assert (b"Authorization", b"Bearer secret") in headers or method == "OPTIONS"
    else:
        assert 400 <= refusal.status < 500
        refusal.envelope().encode("ascii")


@pytest.mark.parametrize(
    ("site", "own_pages_only", "this_machines_pages"),
    [
        ("cross-site", "forbidden", "forbidden"),
        ("same-site", "forbidden", None),
        ("same-origin", None, None),
        ("none", None, None),
    ],
)
def test_request_without_an_origin_header_is_judged_by_sec_fetch_site(
    site: str, own_pages_only: str | None, this_machines_pages: str | None
):
    headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert code(headers=headers) == own_pages_only
    assert code(headers=headers, policy=BROWSERS) == this_machines_pages


def test_request_with_content_length_and_transfer_encoding_is_invalid_and_closes_the_connection():
    headers = [(b"Content-Length", b"4"), (b"Transfer-Encoding", b"chunked")]
    refusal = check(RequestHead("POST", "/x", headers, "127.0.0.1"), POLICY)
    assert refusal is not None
    assert (refusal.code, refusal.headers()["Connection"]) == ("invalid_request", "close")
