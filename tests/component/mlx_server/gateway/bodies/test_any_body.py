"""Bodies made from the gateway's own OpenAPI document: none hangs, gets a 500, or ends the engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.hypothesis  # `make explore` runs these tests too
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]
STORED = "/v1/responses/{response_id}"
WITHOUT_BODY: tuple[str, ...] = (STORED, f"{STORED}/cancel", f"{STORED}/input_items")
WITHOUT_BODY += ("/", "/api/version", "/api/tags", "/api/ps", "/api/status", "/v1/models")
WITHOUT_BODY += ("/health", "/metrics", "/events", "/requests", "/requests/{request_id}")
ENDLESS = "/requests/events"
WITHOUT_BODY += (ENDLESS,)
CHANGING = ("/api/pull", "/api/delete", "/api/create", "/api/copy")
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
BODIES = 5 if settings().derandomize else 8  # `make explore`, whose bodies are new each time, sends more


def narrowed(document: dict[str, Any], chat: str, embed: str) -> dict[str, Any]:
    """Return the document with values that pass the first checks, and without unknown fields."""
    values = {"n": [None, 1, 2], "keep_alive": [None, "5m", -1, 0], "format": [None, "json", {}]}
    values |= {name: [None] for name in ("images", "suffix", "template", "context", "best_of")}
    values |= {name: [None] for name in ("conversation", "previous_response_id")}
    for name, schema in document["components"]["schemas"].items():
        fields = schema.get("properties", {})
        schema["additionalProperties"] = "error" in fields
        found = values | {"model": [embed if "Embed" in name else chat]}
        fields |= {field: {"enum": found[field]} for field in found.keys() & fields.keys()}
    return document


def operations(document: dict[str, Any], except_for: tuple[str, ...]) -> Iterator[Any]:
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]
        if operation.path not in except_for:
            yield operation


def send_bodies(gateway: Any, operation: Any, mode: GenerationMode, examples: int, limit_s: float) -> None:
    """Send this many bodies, and check that each is answered in time and as the document says."""

    session = requests.Session()  # one connection: to open one costs as much as a request

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        began = time.monotonic()
        answer = case.call(base_url=gateway.url, timeout=limit_s, session=session)
        assert time.monotonic() - began < limit_s
        if answer.status_code == 503 and operation.path != "/health":
            assert int(answer.headers["retry-after"][0]) > 0
        else:
            assert answer.status_code < 500, f"{case.body!r}: {answer.text}"
        case.validate_response(answer, checks=CHECKS)

    with session:
        each()


def assert_unharmed(gateway: Any, pid: int) -> None:
    health = gateway.until(
        lambda: (found := gateway.health())["requests"]["running"] == 0 and found, "no request is running"
    )
    assert (health["status"], health["engine"]["pid"], health["engine"]["restarts"]) == ("ok", pid, 0)


def test_openapi_document_describes_every_body_and_its_errors(gateway):
    document = gateway.http.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            takes_body = method in ("post", "delete") and path not in WITHOUT_BODY
            assert ("requestBody" in operation) is takes_body, path
            assert {"401", "403", "500"} <= operation["responses"].keys()
    chat = document["components"]["schemas"]["OllamaChatBody"]
    assert chat["required"] == ["model"]
    options = document["components"]["schemas"]["OllamaOptions"]["properties"]
    assert {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31} in options["top_k"]["anyOf"]
    refused = document["paths"]["/v1/messages"]["post"]["responses"]["400"]["content"]["application/json"]
    assert refused["schema"] == {"$ref": "#/components/schemas/AnthropicError"}


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
def test_any_request_body_gets_an_answer_that_the_openapi_document_allows_and_the_engine_survives(
    gateway, mode
):
    pid = gateway.engine_pid()
    document = narrowed(gateway.http.get("/openapi.json").json(), "chat", "vectors")
    for operation in operations(document, (ENDLESS,)):
        takes_body = operation.method in ("post", "delete") and operation.path not in WITHOUT_BODY
        if takes_body or mode is GenerationMode.POSITIVE:
            bodies = 3 if operation.path in WITHOUT_BODY else BODIES
            send_bodies(gateway, operation, mode, bodies, limit_s=10)
    assert_unharmed(gateway, pid)


@pytest.mark.model
@pytest.mark.timeout(180)
def test_real_engine_survives_any_body(small_gateway: Any, request: pytest.FixtureRequest) -> None:
    pid = small_gateway.engine_pid()
    document = narrowed(small_gateway.http.get("/openapi.json").json(), "smollm2:135m", "all-minilm")
    # Routes without a body need no engine; these others would change the models of other tests.
    for operation in operations(document, (*WITHOUT_BODY, *CHANGING, "/v1/models/{name}")):
        for mode in MODES:
            send_bodies(small_gateway, operation, mode, 4, limit_s=30)
    assert_unharmed(small_gateway, pid)
