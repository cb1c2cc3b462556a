"""The listener's deciding parts: rate and sessions."""

from __future__ import annotations

import pytest

from host_agent.listener.rate_limit import TokenBucket
from host_agent.listener.sessions import LINK_FOR_S, MAX_LINKS, SESSION_FOR_S, Sessions


def test_token_bucket_allows_its_capacity_at_once_and_then_one_request_per_interval():
    bucket = TokenBucket(capacity=2, refill_s=5.0)
    assert [bucket.take(0.0), bucket.take(0.0)] == [0.0, 0.0]
    assert bucket.take(1.0) == pytest.approx(4.0)
    assert bucket.take(5.0) == 0.0
    assert bucket.take(5.0) > 0
    assert [bucket.take(1000.0) for _ in range(3)][:2] == [0.0, 0.0]


def test_sign_in_link_redeemed_twice_opens_only_one_session():
    sessions = Sessions("token")
    key = sessions.make_link(0.0)
    session = sessions.redeem(key, 1.0)
    assert session is not None
    assert sessions.is_open(session, 2.0)
    assert sessions.redeem(key, 2.0) is None
    assert not sessions.is_open("other", 2.0)


def test_sign_in_link_and_session_are_refused_after_their_lifetimes():
    sessions = Sessions("token")
    assert sessions.redeem(sessions.make_link(0.0), LINK_FOR_S + 1) is None
    session = sessions.redeem(sessions.make_link(0.0), 0.0)
    assert session is not None
    assert not sessions.is_open(session, SESSION_FOR_S + 1)


def test_sign_in_links_beyond_the_limit_replace_the_oldest_link():
    sessions = Sessions("token")
    first = sessions.make_link(0.0)
    for _ in range(MAX_LINKS):
        sessions.make_link(0.0)
    assert sessions.redeem(first, 0.0) is None


def test_session_stays_valid_after_an_agent_restart_but_not_after_a_change_of_the_token():
    sessions = Sessions("token")
    session = sessions.redeem(sessions.make_link(0.0), 0.0)
    assert session is not None
    assert Sessions("token").is_open(session, SESSION_FOR_S - 1)
    assert not Sessions("token").is_open(session, SESSION_FOR_S)
    assert not Sessions("another token").is_open(session, 1.0)


@pytest.mark.parametrize(
    "changed", ["", ".", "9" * 30, "x.y", "\u00e4", "\udcff.\udcff", "99999999999-x.{0}"]
)
def test_session_not_issued_by_the_agent_is_refused(changed):
    sessions = Sessions("token")
    session = sessions.redeem(sessions.make_link(0.0), 0.0)
    assert session is not None
    assert not sessions.is_open(changed.format(session.partition(".")[2]), 1.0)
    assert not sessions.is_open(f"9{session}", 1.0)
