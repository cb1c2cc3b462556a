"""Answers of a small model that follow a JSON schema: alone, in a batch, and resumed."""

import json
from typing import Any

import pytest

from mlx_server.protocol import Done, Failed, Sampling
from tests.component.mlx_server.engine.conftest import chat

pytestmark = pytest.mark.model

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "role": {"enum": ["cook", "smith", "sailor"]},
    },
    "required": ["name", "age", "role"],
    "additionalProperties": False,
}
HUGE = {"enum": [f"value {number}" for number in range(10_000)]}
ASK = "Invent a person and describe them."
SEEDED = Sampling(seed=11, temperature=1.0, top_k=40, top_p=0.9, repeat_penalty=1.1)
GREEDY = Sampling(temperature=0.0)


def fits(text: str) -> None:
    person = json.loads(text)
    assert set(person) == {"name", "age", "role"}
    assert person["role"] in ("cook", "smith", "sailor")
    assert 0 <= person["age"] <= 120


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_answer_with_a_json_schema_resumed_at_any_token_equals_the_uninterrupted_answer(engine, sampling):
    name = f"person{sampling.seed}"
    engine.send(chat(name, ASK, max_tokens=80, sampling=sampling, json_schema=PERSON))
    whole = engine.text(name)
    fits(whole)
    assert engine.answer(name, Done).reason == "stop"
    tokens = engine.tokens(name)
    for cut in (1, len(tokens) // 2, len(tokens)):
        emitted = tuple(token.token for token in tokens[:cut])
        resumed = chat(
            f"{name}/{cut}", ASK, max_tokens=80, sampling=sampling, json_schema=PERSON, emitted=emitted
        )
        engine.send(resumed)
        assert "".join(token.text for token in tokens[:cut]) + engine.text(resumed.id) == whole


def test_answers_with_and_without_a_json_schema_are_unchanged_when_batched_together(engine):
    engine.send(chat("loose alone", ASK), chat("bound alone", ASK, max_tokens=80, json_schema=PERSON))
    free, held = engine.text("loose alone"), engine.text("bound alone")
    more = [
        chat(f"bound{i}", ASK, max_tokens=80, json_schema=PERSON, sampling=Sampling(seed=i)) for i in range(3)
    ]
    engine.send(chat("loose", ASK), chat("bound", ASK, max_tokens=80, json_schema=PERSON), *more)
    assert (engine.text("loose"), engine.text("bound")) == (free, held)
    for i in range(3):
        fits(engine.text(f"bound{i}"))


def required(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SMALL_STRING = {"type": "string", "maxLength": 3}
EVERYDAY = [
    required(t={"type": "array", "items": {"enum": ["x", "y"]}, "uniqueItems": True, "maxItems": 2}),
    required(
        d={
            "type": "object",
            "propertyNames": {"type": "string"},
            "additionalProperties": {"type": "boolean"},
            "maxProperties": 1,
        }
    ),
    required(e={"type": "string", "maxLength": 8, "pattern": "^(?!\\.)[a-z.]+$"}),
    required(e={"type": "string", "maxLength": 8, "pattern": "\\bx(a)\\1"}),
    required(v=SMALL_STRING | {"format": "password"}),
    required(v=SMALL_STRING | {"format": "uri-reference"}),
    required(v=SMALL_STRING | {"not": {"const": "x"}}),
    required(v={"type": "array", "items": {"type": "boolean"}, "contains": {"const": True}, "maxItems": 2}),
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": None},
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a", "b"]},
    {"type": "object", "properties": {}},
    {},
]


def test_json_schemas_of_common_libraries_are_accepted_and_the_answers_begin_like_json(engine):
    """Earlier, each was a 400: pydantic's set and SecretStr, zod's record, Go's nil slice, and others."""
    for number, schema in enumerate(EVERYDAY):
        engine.send(chat(f"everyday {number}", ASK, max_tokens=16, sampling=GREEDY, json_schema=schema))
    for number, schema in enumerate(EVERYDAY):
        done = engine.answer(f"everyday {number}", Done)
        assert isinstance(done, Done), (schema, done)
        text = engine.text(f"everyday {number}")
        assert text[:1] in tuple('{["tfn-0123456789'), (schema, text)
    assert json.loads(engine.text("everyday 10")) == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}},
        {"enum": ["a"], "const": "b"},
        required(a={"const": "x", "type": "number"}),
        required(a={"not": {}}),
        {"not": {}},
    ],
    ids=json.dumps,
)
def test_json_schema_that_no_text_can_satisfy_is_refused(engine, schema):
    """Earlier, a schema that refers only to itself was answered with 200 and an empty text."""
    name = f"contradiction {schema}"
    engine.send(chat(name, ASK, json_schema=schema))
    failed = engine.answer(name, Done)
    assert isinstance(failed, Failed)
    assert failed.code == "invalid_request"


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"type": "string", "pattern": "("}, HUGE])
def test_invalid_json_schema_is_refused_as_an_invalid_request(engine, schema):
    name = f"bad {len(str(schema))}"
    engine.send(chat(name, ASK, json_schema=schema))
    failed = engine.answer(name, Done)
    assert isinstance(failed, Failed)
    assert failed.code == "invalid_request"
    assert "JSON schema" in failed.message


def test_json_schema_with_many_optional_properties_does_not_end_the_answer_early(engine):
    """llguidance gives up at 2,000 items a row, some 500 such properties; the answer then ended as invalid
    JSON.
    """
    many = {f"property_{number}": {"type": "boolean"} for number in range(700)}
    schema = {"type": "object", "properties": {"first": {"type": "string", "maxLength": 8}, **many}}
    schema["required"] = ["first", "property_0", "property_699"]
    engine.send(chat("many", ASK, max_tokens=40, sampling=GREEDY, json_schema=schema))
    assert engine.text("many").count('"property_') >= 2
    assert engine.answer("many", Done).reason == "length", "it goes on as long as it may"
