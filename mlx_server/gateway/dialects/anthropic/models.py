"""Describe models in the form of Anthropic's /v1/models. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlx_server.gateway.errors import BadRequest, quoted
from mlx_server.gateway.json_text import iso_time
from mlx_server.model_store import ModelEntry

MOST_LISTED = 1000


def model(entry: ModelEntry) -> dict[str, Any]:
    """Return an installed model as an object of Anthropic's API."""
    return {
        "type": "model",
        "id": entry.name,
        "display_name": entry.name,
        "created_at": iso_time(entry.modified, "seconds"),
        "lifecycle": "active",
        "max_input_tokens": entry.context_tokens,
        "max_tokens": entry.context_tokens,
    }


def models(entries: Sequence[ModelEntry], query: Mapping[str, str]) -> dict[str, Any]:
    """Return one page of the list of models, as `query` asks for it with `limit`, `after_id` and `before_id`.
    Raises BadRequest if `limit` is not a positive whole number, or if `after_id` or `before_id` is not the id
    of a model in the list.
    """
    limit = _limit(query.get("limit"))
    listed = list(entries)
    ids = [entry.name for entry in listed]
    before, after = query.get("before_id"), query.get("after_id")
    for name, given in (("before_id", before), ("after_id", after)):
        if given and given not in ids:
            raise BadRequest("invalid_request", f"{name}: there is no model {quoted(given)}")
    if before:
        some = listed[: ids.index(before)]
        page = some[-limit:]
    else:
        some = listed[ids.index(after) + 1 :] if after else listed
        page = some[:limit]
    return {
        "data": [model(entry) for entry in page],
        "has_more": len(page) < len(some),
        "first_id": page[0].name if page else None,
        "last_id": page[-1].name if page else None,
    }


def _limit(given: str | None) -> int:
    if not given:
        return MOST_LISTED
    if given.isascii() and given.isdecimal() and len(given) < 10 and int(given) > 0:
        return min(int(given), MOST_LISTED)
    raise BadRequest("invalid_request", f"limit: give a whole number from 1 on, not {quoted(given)}")
