"""Read what Ollama answers, and judge whether it works. Pure.

Status 200 is not enough: after a GPU reset Ollama answered 200 with an empty text for six hours
(ollama/ollama issue 18213).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from host_agent.services.http_probe import Reply
from vestal.config.model_names import canonical

OK, BAD_REQUEST, TOO_MANY, BUSY = 200, 400, 429, 503
YEAR_2100 = 4_102_444_800.0
EMBEDDING_FAMILIES = ("bert", "nomic-bert", "nomic-bert-moe", "gemma-embedding", "xlm-roberta")


@dataclass(frozen=True)
class ModelInMemory:
    """A model in memory, as GET /api/ps lists it.

    `size_bytes` is the memory that the model takes. `embeds` is True for an embedding model. `context_tokens`
    is the size of the model's context, and `expires_at` is when Ollama will unload the model, in seconds
    since 1970; each is 0 if Ollama does not report it. At the end of each request to the model, Ollama sets
    `expires_at` to that moment plus the keep-alive. While requests run, `expires_at` is still the time that
    the last ended request set.
    """

    name: str
    size_bytes: int = 0
    embeds: bool = False
    context_tokens: int = 0
    expires_at: float = 0.0

    @property
    def is_permanent(self) -> bool:
        """Return whether Ollama never unloads the model: it then reports a time centuries ahead."""
        return self.expires_at > YEAR_2100


@dataclass(frozen=True)
class ServerInfo:
    """What Ollama reports without using a model: its version, and its installed and loaded models.

    `error` says why the answers are invalid; it is empty if they are valid.
    """

    version: str = ""
    models: tuple[str, ...] = ()
    loaded: tuple[ModelInMemory, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class ModelProbeResult:
    """The result of a probe of a model. `ok` says whether the model works, and `detail` why it does not.

    `busy` is True if the model counts as working although it has generated nothing for the probe, for example
    because its queue is full; `detail` then says why it counts as working, or is empty. `server_time` is
    when the model answered, in seconds since 1970 by the clock of Ollama's server; 0 if the answer does not
    say it.
    """

    ok: bool
    detail: str = ""
    busy: bool = False
    server_time: float = 0.0


@dataclass(frozen=True)
class ModelRequest:
    """A request to a model: the path and the JSON body of a POST."""

    path: str
    body: Mapping[str, Any] = field(default_factory=dict)


def read_server_info(version: Reply, tags: Reply, ps: Reply) -> ServerInfo:
    """Return what the answers to /api/version, /api/tags and /api/ps say: the version, and the installed and
    loaded models.

    If the answer to /api/version or /api/tags is invalid, the result has only `error` and the version, "?" if
    that is unknown. If only the answer to /api/ps is invalid, no model counts as loaded.
    """
    number = str(version.fields.get("version", "?"))
    names = tags.fields.get("models")
    if version.status != OK or tags.status != OK or not isinstance(names, list):
        why = _error(tags) or _error(version)
        statuses = f"it answered {version.status} to /api/version and {tags.status} to /api/tags"
        return ServerInfo(number, error=f"{statuses}{f' ({why})' if why else ''}")
    models = tuple(str(entry.get("name", "?")) for entry in names if isinstance(entry, dict))
    return ServerInfo(number, models, read_loaded_models(ps))


def read_loaded_models(ps: Reply) -> tuple[ModelInMemory, ...]:
    """Return the models in memory; none if the answer is an error (older releases have no /api/ps)."""
    listed = ps.fields.get("models") if ps.status == OK else None
    return tuple(_loaded_model(entry) for entry in listed or () if isinstance(entry, dict))


def choose_probe_model(models: Sequence[ModelInMemory], configured: str | None) -> ModelInMemory | None:
    """Return the model to probe: the `configured` one, even if it is not loaded, else the smallest of the
    loaded `models`.

    If none is configured and none is loaded, return None, so that no model is loaded only to be probed.
    """
    if configured:
        wanted = canonical(configured)
        return next((m for m in models if canonical(m.name) == wanted), ModelInMemory(configured))
    return min(models, key=lambda m: m.size_bytes, default=None)


def probe_request(model: ModelInMemory, *, tokens: int = 1) -> ModelRequest:
    """Return a request for `tokens` tokens, or for one vector of an embedding model, that does not change the
    loaded model.

    The request repeats the model's context size, because another size would reload the model. It has no
    keep-alive: Ollama would apply it to users' later requests too (server/sched.go, `useLoadedRunner`).
    Without one, the model stays loaded after the probe for as long as after its last user's request.
    """
    body: dict[str, Any] = {"model": model.name, "options": {}}
    if model.context_tokens:
        body["options"]["num_ctx"] = model.context_tokens
    if model.embeds:
        return ModelRequest("/api/embed", body | {"input": "one"})
    body["options"] |= {"num_predict": tokens, "temperature": 0}
    return ModelRequest("/api/generate", body | {"prompt": "One, two, three,", "raw": True, "stream": False})


def judge(request: ModelRequest, reply: Reply) -> ModelProbeResult:
    """Return whether the reply to a model request shows that the model works."""
    if reply.status in (TOO_MANY, BUSY):
        return ModelProbeResult(True, "its queue is full", busy=True)
    if reply.status != OK:
        why = _error(reply)
        return ModelProbeResult(False, f"{request.path} answered {reply.status}{f': {why}' if why else ''}")
    return _judge_vector(reply) if request.path == "/api/embed" else _judge_text(reply)


def says_embeddings_only(reply: Reply) -> bool:
    """Return whether Ollama refused to generate because the model only embeds."""
    return reply.status == BAD_REQUEST and "does not support generate" in _error(reply)


def _judge_text(reply: Reply) -> ModelProbeResult:
    if reply.fields.get("response") or reply.fields.get("thinking"):
        return ModelProbeResult(True, server_time=_time(reply.fields.get("created_at")))
    return ModelProbeResult(False, "it answers 200 with an empty text (its runner has lost the GPU)")


def _judge_vector(reply: Reply) -> ModelProbeResult:
    vectors = reply.fields.get("embeddings")
    numbers = vectors[0] if isinstance(vectors, list) and vectors and isinstance(vectors[0], list) else []
    if not numbers or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return ModelProbeResult(False, "it answers 200 with an invalid vector")
    return (
        ModelProbeResult(True)
        if any(numbers)
        else ModelProbeResult(False, "it answers 200 with a vector of zeros")
    )


def _loaded_model(entry: Mapping[str, Any]) -> ModelInMemory:
    details = entry.get("details")
    family = str(details.get("family", "")) if isinstance(details, dict) else ""
    return ModelInMemory(
        name=str(entry.get("name", "")),
        size_bytes=_integer(entry.get("size")),
        embeds=family in EMBEDDING_FAMILIES,
        context_tokens=_integer(entry.get("context_length")),
        expires_at=_time(entry.get("expires_at")),
    )


def _time(text: object) -> float:
    """Return a time from one of Ollama's answers in seconds since 1970; 0 if `text` is not a time. For
    "never", Ollama writes a time centuries ahead, and that time is returned.
    """
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _error(reply: Reply) -> str:
    return str(reply.fields.get("error", ""))[:200]
