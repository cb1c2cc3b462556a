"""Reads what Ollama answers. Pure. An answer must mean something: 200 with an empty text is a failure
(ollama/ollama 18213: after a GPU reset six hours of them)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from host_agent.services.http_probe import Reply
from vestal.config.model_names import canonical

OK, BAD_REQUEST, TOO_MANY, BUSY = 200, 400, 429, 503
FOR_EVER_S = 10 * 365 * 86400.0
EMBEDS = ("bert", "nomic-bert", "nomic-bert-moe", "gemma-embedding", "xlm-roberta")


@dataclass(frozen=True)
class Loaded:
    """A model in memory, from /api/ps. `size_bytes` of memory; `context_tokens` 0 where it is not told."""

    name: str
    size_bytes: int = 0
    embeds: bool = False
    context_tokens: int = 0
    expires_at: float = 0.0


@dataclass(frozen=True)
class Light:
    """The answers that cost nothing: version, installed and loaded models. `wrong` says what is not right."""

    version: str = ""
    models: tuple[str, ...] = ()
    loaded: tuple[Loaded, ...] = ()
    wrong: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a token, or a vector, says. `busy`: no answer, and yet it works."""

    ok: bool
    detail: str = ""
    busy: bool = False


@dataclass(frozen=True)
class Question:
    """A request to a model: path and body."""

    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


def light(version: Reply, tags: Reply, ps: Reply) -> Light:
    """What the three free questions say together."""
    told = str(version.fields.get("version", "?"))
    names = tags.fields.get("models")
    if OK not in (version.status,) or tags.status != OK or not isinstance(names, list):
        why = _error(tags) or _error(version)
        statuses = f"it answered {version.status} to /api/version and {tags.status} to /api/tags"
        return Light(told, wrong=f"{statuses}{f' ({why})' if why else ''}")
    models = tuple(str(entry.get("name", "?")) for entry in names if isinstance(entry, dict))
    return Light(told, models, loaded(ps))


def loaded(ps: Reply) -> tuple[Loaded, ...]:
    """The models in memory; none where the answer is not one (older releases have no /api/ps)."""
    listed = ps.fields.get("models") if ps.status == OK else None
    return tuple(_loaded(entry) for entry in listed or () if isinstance(entry, dict))


def chosen(models: Sequence[Loaded], configured: str | None) -> Loaded | None:
    """The model to ask: the configured one, else the smallest that is loaded. None: none is loaded, and a
    model is not loaded only to be asked."""
    if configured:
        wanted = canonical(configured)
        return next((m for m in models if canonical(m.name) == wanted), Loaded(configured))
    return min(models, key=lambda m: m.size_bytes, default=None)


def question(model: Loaded, now: float, *, tokens: int = 1) -> Question:
    """One token, or one vector, that leaves the model as it is: the same context (another would load it
    anew), and unloaded when it would have been."""
    body: dict[str, Any] = {"model": model.name, "options": {}}
    if model.context_tokens:
        body["options"]["num_ctx"] = model.context_tokens
    if model.expires_at:
        left_s = model.expires_at - now
        body["keep_alive"] = -1 if left_s > FOR_EVER_S else f"{max(1, math.ceil(left_s))}s"
    if model.embeds:
        return Question("/api/embed", body | {"input": "one"})
    body["options"] |= {"num_predict": tokens, "temperature": 0}
    return Question("/api/generate", body | {"prompt": "One, two, three,", "raw": True, "stream": False})


def verdict(asked: Question, reply: Reply) -> Verdict:
    """Whether the answer is one."""
    if reply.status in (TOO_MANY, BUSY):
        return Verdict(True, "its queue is full", busy=True)
    if reply.status != OK:
        why = _error(reply)
        return Verdict(False, f"{asked.path} answered {reply.status}{f': {why}' if why else ''}")
    return _vector(reply) if asked.path == "/api/embed" else _text(reply)


def takes_no_text(reply: Reply) -> bool:
    """The model only embeds."""
    return reply.status == BAD_REQUEST and "does not support generate" in _error(reply)


def _text(reply: Reply) -> Verdict:
    if reply.fields.get("response") or reply.fields.get("thinking"):
        return Verdict(True)
    return Verdict(False, "it answers 200 with an empty text (its runner has lost the GPU)")


def _vector(reply: Reply) -> Verdict:
    vectors = reply.fields.get("embeddings")
    numbers = vectors[0] if isinstance(vectors, list) and vectors and isinstance(vectors[0], list) else []
    if not numbers or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return Verdict(False, "it answers 200 with a vector that is none")
    return Verdict(True) if any(numbers) else Verdict(False, "it answers 200 with a vector of zeros")


def _loaded(entry: Mapping[str, Any]) -> Loaded:
    details = entry.get("details")
    family = str(details.get("family", "")) if isinstance(details, dict) else ""
    return Loaded(
        name=str(entry.get("name", "")),
        size_bytes=_whole(entry.get("size")),
        embeds=family in EMBEDS,
        context_tokens=_whole(entry.get("context_length")),
        expires_at=_time(entry.get("expires_at")),
    )


def _time(text: object) -> float:
    """Go writes up to nine digits of a second; 0 for no time, and a far year for never."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _error(reply: Reply) -> str:
    return str(reply.fields.get("error", ""))[:200]
