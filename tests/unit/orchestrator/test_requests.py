"""The query parameters of the API."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.api.requests import limit_of
from vestal.web.http_error import HttpError


def request(limit: str) -> Any:
    return SimpleNamespace(query={"limit": limit})


@pytest.mark.parametrize(("given", "limit"), [("1", 1), ("500", 500), ("0" * 5000 + "7", 7)])
def test_limit_from_one_to_the_maximum_is_accepted(given: str, limit: int):
    assert limit_of(request(given), default=50, maximum=500) == limit


@pytest.mark.parametrize(
    "given", ["", "0", "501", "-1", "1.5", "\u0663", "000000001" + "9" * 20, "000000001" + "9" * 5000]
)
def test_limit_beyond_the_maximum_or_not_a_number_is_refused(given: str):
    """Only the first nine digits of a limit were checked."""
    with pytest.raises(HttpError, match="from 1 to 500"):
        limit_of(request(given), default=50, maximum=500)
