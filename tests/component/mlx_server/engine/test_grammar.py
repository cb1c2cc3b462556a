"""Answers held to a JSON schema by a small model, alone, in a batch, and taken up again."""

import json

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
def test_answer_fits_its_schema_and_resumed_at_any_cut_is_the_same(engine, sampling):
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


def test_constrained_and_free_answers_share_a_batch(engine):
    engine.send(chat("loose alone", ASK), chat("bound alone", ASK, max_tokens=80, json_schema=PERSON))
    free, held = engine.text("loose alone"), engine.text("bound alone")
    more = [
        chat(f"bound{i}", ASK, max_tokens=80, json_schema=PERSON, sampling=Sampling(seed=i)) for i in range(3)
    ]
    engine.send(chat("loose", ASK), chat("bound", ASK, max_tokens=80, json_schema=PERSON), *more)
    assert (engine.text("loose"), engine.text("bound")) == (free, held)
    for i in range(3):
        fits(engine.text(f"bound{i}"))


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"type": "string", "pattern": "("}, HUGE])
def test_invalid_schema_is_refused_naming_the_fault(engine, schema):
    name = f"bad {len(str(schema))}"
    engine.send(chat(name, ASK, json_schema=schema))
    failed = engine.answer(name, Done)
    assert isinstance(failed, Failed)
    assert failed.code == "invalid_request"
    assert "JSON schema" in failed.message


def test_schema_with_many_optional_properties_does_not_end_the_answer_early(engine):
    """llguidance gives up at 2,000 items a row, some 500 such properties; the answer ended there, no JSON."""
    many = {f"property_{number}": {"type": "boolean"} for number in range(700)}
    schema = {"type": "object", "properties": {"first": {"type": "string", "maxLength": 8}, **many}}
    schema["required"] = ["first", "property_0", "property_699"]
    engine.send(chat("many", ASK, max_tokens=40, sampling=GREEDY, json_schema=schema))
    assert engine.text("many").count('"property_') >= 2
    assert engine.answer("many", Done).reason == "length", "it goes on as long as it may"
