"""/openapi.json: bodies, answers and errors of every route, from the models that validate them.

Handlers read raw bodies, whatever their Content-Type and bounded in size, so FastAPI cannot see them. A route
says what it takes with `**takes(Body)`; `completed` makes components of that and adds each dialect's errors.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from mlx_server.gateway import errors
from mlx_server.gateway.dialects.bodies import Body

ANY_REQUEST = frozenset({"401", "403", "500"})
WITH_BODY = frozenset({"400", "404", "413", "503"})
REASONS = {
    "400": "The body is not JSON, a field is wrong or not supported, or the prompt does not fit the context",
    "401": "This address needs the API key",
    "403": "A page or a name of elsewhere",
    "404": "There is no such model; the answer lists what there is",
    "413": "The body is over mlx.max_body_bytes",
    "500": "The engine failed on this request, or the gateway did",
    "503": "The server is full, stopping, or has no engine; Retry-After says when to ask again",
}
ENVELOPES = {
    "OllamaError": {
        "type": "object",
        "required": ["error", "code"],
        "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    },
    "OpenAIError": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {name: {"type": "string"} for name in ("message", "type", "code")},
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message", "code"],
                "properties": {name: {"type": "string"} for name in ("message", "type", "code")},
            },
        },
    },
}
# Bounds of a number that a validator of ours looks at first stand under pydantic's own names.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def takes(model: type[Body], *, stream: str | None = None) -> dict[str, Any]:
    """Arguments for a route whose body is `model`; `stream` is the media type of its streamed answer."""
    dialect = model.__module__.rpartition(".")[2].removesuffix("_schema").capitalize()
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{dialect}{{model}}")
    parts = {f"{dialect}{name}": part for name, part in schema.pop("$defs", {}).items()}
    parts[f"{dialect}{model.__name__}"] = schema
    reference = {"$ref": f"#/components/schemas/{dialect}{model.__name__}", "$defs": parts}
    body = {"required": True, "content": {"application/json": {"schema": reference}}}
    out: dict[str, Any] = {"openapi_extra": {"requestBody": body}}
    if stream:
        out["responses"] = {200: {"content": {stream: {"schema": {}}}}}
    return out


class DocumentedApp(FastAPI):
    """An application whose document is completed when it is first asked for."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            completed(super().openapi())
        assert self.openapi_schema is not None
        return self.openapi_schema


def completed(document: dict[str, Any]) -> None:
    """Moves the bodies' parts to the components, and adds the errors, each in its path's envelope."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which nothing here answers with
        schemas.pop(name, None)
    schemas |= ENVELOPES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            statuses = {*ANY_REQUEST, *operation["responses"]}
            if body := operation.get("requestBody"):
                schemas |= _renamed(body["content"]["application/json"]["schema"].pop("$defs", {}))
                statuses |= WITH_BODY
            for status in sorted(statuses & REASONS.keys()):
                told = operation["responses"].get(status, {})
                if "content" not in told:
                    operation["responses"][status] = told | _error(status, path)


def _error(status: str, path: str) -> dict[str, Any]:
    envelope = {"$ref": f"#/components/schemas/{_envelope(path)}"}
    return {"description": REASONS[status], "content": {"application/json": {"schema": envelope}}}


def _envelope(path: str) -> str:
    if errors.is_anthropic(path):
        return "AnthropicError"
    return "OpenAIError" if errors.is_openai(path) else "OllamaError"


def _renamed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_renamed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {_BOUNDS.get(key, key): _renamed(value) for key, value in schema.items()}
