"""References in schemas are found however generators write them, and hold the answer to what they mean."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from mlx_server.engine.errors import RequestError
from mlx_server.engine.grammar.grammars import Grammars
from mlx_server.engine.grammar.json_schema import SchemaAdapter
from mlx_server.engine.grammar.schema_references import ReferenceFinder, pointer_to

BOOLEAN = {"type": "boolean"}


def is_allowed(schema: dict[str, Any], text: str) -> bool:
    """Return whether the grammar of `schema` allows `text` as a whole answer."""
    matcher = Grammars.for_checks()._matcher(schema)
    return matcher.consume_tokens(list(text.encode())) and matcher.is_accepting()


def with_property(reference: str, **more: Any) -> dict[str, Any]:
    """Return the schema of an object whose property `a` is what `reference` means."""
    return {"type": "object", "properties": {"a": {"$ref": reference}}, "required": ["a"], **more}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("List[int]", "List[int]"),  # pydantic's and other generators' generics
        ("List[int]", "List%5Bint%5D"),
        ("Pair<A, B>", "Pair<A, B>"),
        ("a|b", "a|b"),
        ("{x}^`", "{x}^`"),
        ('a"b\\c', 'a"b\\c'),
        ("Größe", "Größe"),
        ("Größe", "Gr%C3%B6%C3%9Fe"),
        ("a%b", "a%b"),
        ("a%b", "a%25b"),
        ("a%25b", "a%25b"),
        ("a/b", "a~1b"),
        ("a/b", "a/b"),
        ("a~b", "a~0b"),
        ("a~b", "a~b"),
        ("~1", "~01"),
        ("a#b", "a#b"),
        ("", ""),
    ],
)
def test_reference_to_a_definition_of_any_name_holds_the_answer_to_it(name, written):
    """Unescaped brackets were a 400 ("Invalid URI reference"), as in schemas of generic types."""
    schema = with_property(f"#/$defs/{written}", **{"$defs": {name: BOOLEAN}})
    assert is_allowed(schema, '{"a":true}') and not is_allowed(schema, '{"a":1}')


@pytest.mark.parametrize(
    "schema",
    [
        with_property("#x", **{"$defs": {"q": {"$anchor": "x", **BOOLEAN}}}),
        with_property("#x", **{"$defs": {"q": {"$dynamicAnchor": "x", **BOOLEAN}}}),
        with_property("#x", definitions={"q": {"$id": "#x", **BOOLEAN}}),  # draft 6
        with_property("#x", definitions={"q": {"id": "#x", **BOOLEAN}}),  # draft 4
        with_property("T", **{"$defs": {"q": {"$id": "T", **BOOLEAN}}}),  # TypeBox
        with_property("q.json", **{"$id": "http://h/r.json", "$defs": {"q": {"$id": "q.json", **BOOLEAN}}}),
        with_property("http://h/r#x", **{"$id": "http://h/r", "$defs": {"q": {"$anchor": "x", **BOOLEAN}}}),
        with_property(
            "q.json#/$defs/z",
            **{"$id": "http://h/r", "$defs": {"q": {"$id": "q.json", "$defs": {"z": BOOLEAN}}}},
        ),
        with_property(
            "#/$defs/q", **{"$defs": {"q": {"$id": "q", "$ref": "#/$defs/z", "$defs": {"z": BOOLEAN}}}}
        ),
        with_property("#/$defs/q", **{"$defs": {"q": {"$id": "q", "$ref": "#/$defs/z"}, "z": BOOLEAN}}),
        with_property("#/$defs/q", **{"$defs": {"q": {"$ref": "#/$defs/z", "$defs": {"z": BOOLEAN}}}}),
    ],
    ids=json.dumps,
)
def test_reference_to_an_anchor_or_an_id_holds_the_answer_to_what_it_means(schema):
    """An anchor counted as the root, and a required property that used it as a value without end (400)."""
    assert is_allowed(schema, '{"a":true}') and not is_allowed(schema, '{"a":1}')


def test_reference_below_the_root_without_target_allows_any_value_there():
    for reference in ("#/$defs/Nope", "https://example.org/remote", "#nope"):
        assert is_allowed(with_property(reference), '{"a":[1]}')
        with pytest.raises(RequestError, match=re.escape(f"nothing remains of it without $ref {reference}")):
            Grammars.for_checks().check({"$ref": reference})


def test_reference_to_the_schema_of_schemas_is_kept():
    schema = {"$ref": "http://json-schema.org/draft-07/schema#"}
    assert SchemaAdapter(schema).adapted() == schema
    Grammars.for_checks().check(schema)


def test_reference_finder_prefers_the_anchor_that_is_nearest_to_the_reference():
    parts = [{"$anchor": "x"}, {"b": {"$ref": "#x"}, "c": {"$anchor": "x"}}, {"$ref": "#x"}, {"$anchor": "x"}]
    finder = ReferenceFinder({"$defs": {"p": parts[0], "q": parts[1]}, "items": parts[2], "z": parts[3]})
    assert finder.find("#x", ("$defs", "q", "b")) == ("$defs", "q", "c")
    assert finder.find("#x", ("items",)) in [("$defs", "q", "c"), ("z",)]
    assert finder.find("#y", ("items",)) is None


def test_pointer_to_a_path_is_a_uri():
    assert pointer_to(("$defs", "a/b~[c]", 0)) == "#/$defs/a~1b~0%5Bc%5D/0"


@pytest.mark.parametrize("target", ["#/a/b/c", "#x", "#" + "/a" * 20_000, "x" * 60_000])
def test_many_references_in_a_deep_schema_are_resolved_quickly(target):
    number = 60_000 // (len(target) + 18) + 1  # a schema has 64 KiB at most
    deep: dict[str, Any] = {"properties": {f"p{i}": {"$ref": target} for i in range(number)}}
    for _ in range(90):
        deep = {"properties": {"a": deep}, "$anchor": "x"}
    started = time.process_time()
    SchemaAdapter({"type": "object", "items": deep}).adapted()
    assert time.process_time() - started < 5
