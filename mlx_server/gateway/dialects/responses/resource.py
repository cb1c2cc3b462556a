"""The response object: the parameters as the server interpreted them, the status, the output and the usage.
Pure.
"""

from __future__ import annotations

from typing import Any

from mlx_server import protocol
from mlx_server.gateway.dialects.error_envelopes import openai_body
from mlx_server.gateway.dialects.responses.offered_tools import OfferedTools
from mlx_server.gateway.dialects.responses.schema import CreateBody
from vestal.web.http_error import HttpError

Resource = dict[str, Any]

CODES = {"context_exceeded": "context_length_exceeded", "request_cancelled": "invalid_prompt"}
"""The names that OpenAI has for error codes to which clients react. At the first, Codex shortens its
conversation; at the second, Codex shows the message and stops. At an unknown code, Codex sends the request
again, so that a cancelled request would come back."""


def new_response(
    body: CreateBody, offered: OfferedTools, response_id: str, created_at: int, *, is_stored: bool
) -> Resource:
    """Return the object of a response that is in progress. `created_at` is in seconds since 1970."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": None,
        "status": "in_progress",
        "incomplete_details": None,
        "error": None,
        "model": body.model,
        "previous_response_id": body.previous_response_id,
        "instructions": body.instructions,
        "output": [],
        "usage": None,
        "tools": list(offered.shown),
        "tool_choice": offered.choice,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "max_tool_calls": body.max_tool_calls,
        "max_output_tokens": None if body.is_unlimited else body.max_output_tokens,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "top_logprobs": body.top_logprobs or 0,
        "text": _text(body),
        "reasoning": {
            "effort": body.reasoning.effort if body.reasoning else None,
            "summary": body.reasoning.summary if body.reasoning else None,
        },
        "truncation": body.truncation or "disabled",
        "store": is_stored,
        "background": bool(body.background),
        "service_tier": "default",
        "metadata": body.metadata or {},
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }


def _text(body: CreateBody) -> dict[str, Any]:
    verbosity = (body.text.verbosity if body.text else None) or "medium"
    wanted = body.text.format if body.text else None
    if wanted is None or wanted.type != "json_schema":
        return {"format": {"type": wanted.type if wanted else "text"}, "verbosity": verbosity}
    shown = {
        "type": "json_schema",
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.json_schema,
        "strict": wanted.strict is not False,  # a grammar forces the model to follow every schema
    }
    return {"format": shown, "verbosity": verbosity}


def ended(done: protocol.Done, now: int) -> Resource:
    """Return the fields that change when the answer is complete. `now` is in seconds since 1970."""
    if done.reason == "length":
        return {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "usage": usage(done.usage),
        }
    return {"status": "completed", "completed_at": now, "usage": usage(done.usage)}


def failed(error: HttpError) -> Resource:
    """Return the fields that change when the response fails."""
    code = CODES.get(error.code, error.code)
    return {"status": "failed", "error": {"code": code, "message": error.message}}


def error_payload(error: HttpError) -> dict[str, Any]:
    """Return the error in the form that `error` events contain."""
    payload: dict[str, Any] = openai_body(error)["error"]
    return payload | {"code": CODES.get(error.code, error.code)}


def usage(used: protocol.Usage) -> dict[str, Any]:
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
