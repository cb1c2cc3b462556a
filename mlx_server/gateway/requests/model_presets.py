"""Apply the settings of a model's preset that the client's body does not set. Pure.

`ollama create` makes a model from another model: with the same weights, but with its own system prompt,
messages and parameters, which form its preset. Every dialect calls `with_preset` on each request that it
makes from a body.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from mlx_server.gateway.requests.model_requests import (
    SEED_MASK,
    GenerationRequest,
    ModelRequest,
    UnloadRequest,
)
from mlx_server.model_store import ModelEntry
from mlx_server.protocol import Sampling

_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "num_predict": ("max_tokens", "max_completion_tokens", "max_output_tokens"),
    "stop": ("stop_sequences",),
    "repeat_penalty": ("repetition_penalty",),
}
"""The names that Ollama's options have in other dialects."""

_MOST_TOKENS = 2**31 - 1
_WHOLE_NUMBERS = ("seed", "top_k")
_FRACTIONS = (
    *("temperature", "top_p", "min_p", "repeat_penalty"),
    *("presence_penalty", "frequency_penalty"),
)

RequestT = TypeVar("RequestT", bound=ModelRequest)


def with_preset(model: ModelEntry, body: BaseModel, request: RequestT) -> RequestT:
    """Return `request`, which was made from `body`, with the model's preset applied. Settings in the body
    take precedence.

    Several models may share their weights, which the engine loads under the name of one of them. The result
    names that model. If it is not `model` itself, the result also names `model`, as `requested_model`: if the
    model whose name is used is deleted while the request waits, the engine looks up the weights of `model`
    again.
    """
    names: dict[str, Any] = {"model": model.loaded_as}
    if model.loaded_as != model.name and not isinstance(request, UnloadRequest):
        names["requested_model"] = model.name
    named = dataclasses.replace(request, **names)
    if not isinstance(named, GenerationRequest) or model.preset.changes_nothing:
        return named
    options = {name: value for name, value in model.preset.parameters.items() if name not in _given(body)}
    changes: dict[str, Any] = {"sampling": _sampling(named.sampling, options)}
    if named.kind == "chat":
        examples = () if named.context_ids else model.preset.messages  # `context_ids` contain them already
        changes["messages"] = _messages(model.preset.system, examples, named.messages or ())
        changes["chat_template"] = named.chat_template or model.preset.template or None
    if (limit := _whole(options.get("num_predict"))) is not None and limit > 0:
        changes["max_tokens"] = limit
    if (context_tokens := _whole(options.get("num_ctx"))) is not None and context_tokens > 0:
        changes["context_tokens"] = context_tokens
    if stop := options.get("stop"):
        texts = stop if isinstance(stop, list) else [stop]
        changes["stop"] = tuple(text for text in texts if isinstance(text, str) and text)
    return dataclasses.replace(named, **changes)


def _given(body: BaseModel) -> frozenset[str]:
    """Return the names of the options that a body sets, in Ollama's spelling. Ollama's bodies hold them in
    `options`.
    """
    options = getattr(body, "options", None)
    fields = [*_fields(body), *(_fields(options) if isinstance(options, BaseModel) else ())]
    known_as = {other: name for name, others in _SPELLINGS.items() for other in others}
    return frozenset(known_as.get(name, name) for name in fields)


def _fields(body: BaseModel) -> list[str]:
    return [name for name in body.model_fields_set if getattr(body, name) is not None]


def _messages(
    system: str, examples: Sequence[dict[str, Any]], messages: tuple[dict[str, Any], ...]
) -> tuple[dict[str, Any], ...]:
    """Return the conversation `messages`, preceded by the system prompt and then by the preset's `examples`.
    The system prompt is the client's own if `messages` begins with one, else the preset's (`system`).
    """
    if messages and messages[0].get("role") in ("system", "developer"):
        return (messages[0], *examples, *messages[1:])
    prompt = ({"role": "system", "content": system},) if system else ()
    return (*prompt, *examples, *messages)


def _sampling(sampling: Sampling, options: Mapping[str, Any]) -> Sampling:
    changes: dict[str, Any] = {
        name: value for name in _WHOLE_NUMBERS if (value := _whole(options.get(name))) is not None
    }
    changes |= {name: float(options[name]) for name in _FRACTIONS if _is_number(options.get(name))}
    if "seed" in changes:
        changes["seed"] = changes["seed"] & SEED_MASK if changes["seed"] != -1 else sampling.seed
    if changes.get("top_p") == 0:  # the most probable token only
        changes |= {"top_p": 1.0, "temperature": 0.0}
    last_tokens = _whole(options.get("repeat_last_n"))
    if last_tokens == 0:
        changes["repeat_penalty"] = 1.0
    elif last_tokens is not None:
        changes["repeat_last_tokens"] = _MOST_TOKENS if last_tokens < 0 else last_tokens
    return msgspec.structs.replace(sampling, **changes) if changes else sampling


def _is_number(value: Any) -> bool:
    """Return whether `value`, a preset's value for an option, is a number (and no bool) between -2**63 and
    2**63. The check is needed because a preset's manifest may have been edited by hand.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _whole(value: Any) -> int | None:
    return int(value) if _is_number(value) and value == int(value) else None
