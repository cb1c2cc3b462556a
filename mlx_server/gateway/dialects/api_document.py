"""Make /openapi.json, which describes the bodies, answers and errors of every route.

FastAPI does not know the schemas of the bodies, because the handlers read their bodies themselves (see
`bodies`). A route therefore declares its body with `**takes(Body)`. `complete` moves these schemas to the
document's components, and adds the errors in the envelope of each dialect.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from mlx_server.gateway.dialects.bodies import Body
from mlx_server.gateway.dialects.error_envelopes import ENVELOPES, envelope_for

STATUSES_OF_ALL = frozenset({"401", "403", "500"})
STATUSES_WITH_BODY = frozenset({"400", "404", "413", "503"})
DESCRIPTIONS = {
    "400": "The body is not JSON, a field is wrong or not supported, or the prompt does not fit the context",
    "401": "This address needs the API key",
    "403": "The Origin or the Host of the request is foreign",
    "404": "There is no such model; the answer lists those there are",
    "413": "The body is over mlx.max_body_bytes, or holds too many values",
    "500": "The engine failed on this request, or the gateway did",
    "503": "The server is full, stopping, or has no engine; Retry-After says when to try again",
}
# If a validator of this server runs first (`WholeNumber`), pydantic writes bounds under names of its own.
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def takes(model: type[Body], *, stream: str | None = None) -> dict[str, Any]:
    """Return the keyword arguments for FastAPI that document a route whose body is an instance of the class
    `model`. `stream` is the media type of a streamed answer; None if the route does not stream.

    A schema's name begins with the dialect, which is the folder of the class's module: `OllamaChatBody`.
    """
    dialect = model.__module__.split(".")[-2].capitalize()
    schema = model.model_json_schema(ref_template=f"#/components/schemas/{dialect}{{model}}")
    components = {f"{dialect}{name}": part for name, part in schema.pop("$defs", {}).items()}
    components[f"{dialect}{model.__name__}"] = schema
    reference = {"$ref": f"#/components/schemas/{dialect}{model.__name__}", "$defs": components}
    body = {"required": True, "content": {"application/json": {"schema": reference}}}
    arguments: dict[str, Any] = {"openapi_extra": {"requestBody": body}}
    if stream:
        arguments["responses"] = {200: {"content": {stream: {"schema": {}}}}}
    return arguments


class DocumentedApp(FastAPI):
    """A FastAPI application whose OpenAPI document also describes the bodies that the routes read themselves,
    and each dialect's errors. The document is made when it is first requested.
    """

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            complete(super().openapi())
        assert self.openapi_schema is not None
        return self.openapi_schema


def complete(document: dict[str, Any]) -> None:
    """Complete the OpenAPI document `document` in place. The schemas that the request bodies refer to are
    moved to the document's components. Each operation gets its error responses, with the JSON envelope that
    the dialect of its path gives to errors.
    """
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which no route answers with
        schemas.pop(name, None)
    schemas |= {envelope.name: envelope.schema for envelope in ENVELOPES}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            statuses = {*STATUSES_OF_ALL, *operation["responses"]}
            if body := operation.get("requestBody"):
                schemas |= _with_standard_bounds(
                    body["content"]["application/json"]["schema"].pop("$defs", {})
                )
                statuses |= STATUSES_WITH_BODY
            for status in sorted(statuses & DESCRIPTIONS.keys()):
                declared = operation["responses"].get(status, {})
                if "content" not in declared:
                    operation["responses"][status] = declared | _error(status, path)


def _error(status: str, path: str) -> dict[str, Any]:
    envelope = {"$ref": f"#/components/schemas/{envelope_for(path).name}"}
    return {"description": DESCRIPTIONS[status], "content": {"application/json": {"schema": envelope}}}


def _with_standard_bounds(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_standard_bounds(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {_BOUNDS.get(key, key): _with_standard_bounds(value) for key, value in schema.items()}
