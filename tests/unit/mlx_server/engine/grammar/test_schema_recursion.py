"""Schemas that require an endlessly nested value are found, and no others."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mlx_server.engine.grammar.schema_recursion import is_endless


def node(**more: Any) -> dict[str, Any]:
    """Return the schema of an object that requires another object of the same schema."""
    return {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"], **more}


def with_definitions(schema: Any, **definitions: Any) -> dict[str, Any]:
    return {**schema, "$defs": definitions}


N = {"$ref": "#/$defs/n"}


@pytest.mark.parametrize(
    "schema",
    [
        with_definitions(N, n=N),  # it was answered with 200 and an empty text
        with_definitions(N, n={"$ref": "#/$defs/m"}, m=N),
        node(),
        with_definitions({"type": "object", "properties": {"a": N}, "required": ["a"]}, n=N),
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {"type": "array", "prefixItems": [True, {"$ref": "#"}], "minItems": 2},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"type": "object"}, {"$ref": "#"}]},
        {"type": "object", "additionalProperties": {"$ref": "#"}, "required": ["a"]},
        {"type": "object", "additionalProperties": {"$ref": "#"}, "minProperties": 1},
        with_definitions({"$ref": "#/$defs/a~1b%20c"}, **{"a/b c": {"$ref": "#/$defs/a~1b%20c"}}),
    ],
    ids=json.dumps,
)
def test_schema_that_requires_itself_recursively_is_recognized_as_endless(schema):
    assert is_endless(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        node(required=[]),
        node(required=["other"]),
        node(properties={"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}),
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 0},
        {"type": ["object", "null"], "properties": {"next": {"$ref": "#"}}, "required": ["next"]},
        with_definitions(N, n={"type": "string"}),
        with_definitions(N, n={"$ref": "#/$defs/m"}, m={"$ref": "#/$defs/k"}, k={}),
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/missing"},
        {"properties": {"$ref": {"type": "string"}}, "required": None, "type": "object"},
        {"properties": 3, "required": ["a"], "type": "object", "anyOf": {}},
    ],
    ids=json.dumps,
)
def test_recursive_schema_that_a_finite_text_can_satisfy_is_not_endless(schema):
    assert not is_endless(schema)


@pytest.mark.parametrize("step", [1, -1, 617])
def test_schema_with_a_long_chain_of_references_is_checked_quickly(step):
    names = [f"d{i * step % 1999}" for i in range(1999)]
    chain: dict[str, Any] = {a: {"$ref": f"#/$defs/{b}"} for a, b in zip(names, names[1:], strict=False)}
    started = time.process_time()
    assert not is_endless(with_definitions({"$ref": f"#/$defs/{names[0]}"}, **chain, **{names[-1]: {}}))
    assert time.process_time() - started < 5
