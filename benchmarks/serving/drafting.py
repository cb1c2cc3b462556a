"""Measure how drafting (speculative decoding) changes the speed of three sorts of answers: one that copies
its prompt, free prose, and one that follows a JSON schema.

    python -m benchmarks.serving.drafting [ROUNDS [SUBJECT …]]

These servers run the same model and take turns: a gateway with drafting but no draft model, a gateway without
drafting, a gateway with drafting and a draft model, and mlx_lm.server with and without the same draft model.
mlx_lm.server gets no requests with a JSON schema, which it does not support. ROUNDS is how often each server
is measured in each case (2 by default). SUBJECT is the name of a server; by default, all take part.

The requests are greedy, streamed chat completions, of which 1, 4 or 8 run at the same time. The speed is in
tokens per second of all of them together, from the first text to the last. The gain is the speed of the
gateway with drafting but no draft model, divided by the speed of the gateway without drafting in the same
round.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.client.requests import MODEL, SCHEMA
from benchmarks.figures import VESTAL, Better, Figure
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import Messages, request, story, tokens_per_s, unused_number, warm_up
from benchmarks.serving.contest import Contest
from benchmarks.serving.servers import MLX_LM, Server
from benchmarks.serving.starting import bench_model, running
from vestal.config.settings.models import BUILT_IN_MODELS

TOKENS = 64
STREAMS = (1, 4, 8)
WITHOUT = f"{VESTAL} without drafts"
VARIANTS = {
    VESTAL: {"VESTAL_MLX__PROMPT_CACHE_RAM": "0"},
    WITHOUT: {"VESTAL_MLX__PROMPT_CACHE_RAM": "0", "VESTAL_MLX__DRAFTING": "false"},
}
WITH_MODEL = f"{VESTAL}+draft"
PEERS = (MLX_LM, f"{MLX_LM}+draft")
ROW, GAIN = "drafting/{}/{}", "drafting/{}/{}/gain"
UNIT: tuple[str, Better] = ("tok/s", "higher")
TEXT = (
    "The lighthouse keeper climbed the stairs each evening, lit the lamp, and wrote the weather into a small "
    "blue book. In the winter of 1911 a ship from Bergen ran onto the rocks below, and all twelve men were "
    "saved before the tide turned."
)
"""A text and not code, because the small model of the benchmarks, asked to repeat a function, writes another
one.
"""
Body = tuple[Messages, dict[str, Any]]
"""The messages of a request, and the other fields of its body."""


def _copying() -> Body:
    asked = f'{unused_number()}. Repeat the following text exactly:\n\n"{TEXT}"'
    return [{"role": "user", "content": asked}], {}


def _prose() -> Body:
    return story(), {}


def _schema() -> Body:
    text = f"{unused_number()}. Describe five people as JSON."
    people = {"type": "array", "items": SCHEMA, "minItems": 5, "maxItems": 5}
    wrapped = {"type": "object", "properties": {"people": people}, "required": ["people"]}
    form = {"type": "json_schema", "json_schema": {"name": "people", "schema": wrapped}}
    return [{"role": "user", "content": text}], {"response_format": form}


ANSWERS: dict[str, Callable[[], Body]] = {"copying": _copying, "prose": _prose, "schema": _schema}


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    cases = [(answer, streams) for streams, answer in itertools.product(STREAMS, ANSWERS)]
    rows = [ROW.format(*case) for case in cases if case[0] != "schema"]
    with running(log, subjects, rows, VARIANTS | _with_draft_model(), PEERS) as servers:
        contest = Contest(log, servers)
        contest.warm_up(warm_up)
        for number, (answer, streams) in itertools.product(range(1, rounds + 1), cases):
            row = ROW.format(answer, streams)
            bodies = [ANSWERS[answer]() for _ in range(streams)]
            among = _has_schemas if answer == "schema" else None
            found = contest.turn(number, {row: UNIT}, partial(_speed, row, bodies), among)
            if VESTAL in found and WITHOUT in found:
                gain = found[VESTAL][row] / found[WITHOUT][row]
                log(Figure(GAIN.format(answer, streams), VESTAL, gain, "×", "higher", number))


def _with_draft_model() -> dict[str, dict[str, str]]:
    """Return a dict from the name of the gateway with a draft model to its environment variables; an empty
    dict if no draft model is available.
    """
    if (draft := bench_model().draft) is None:
        return {}
    target = {"source": BUILT_IN_MODELS[MODEL].source, "draft": f"path:{draft}"}
    file = draft.with_name("draft.yaml")
    file.write_text(json.dumps({"models": {MODEL: target}}))
    return {WITH_MODEL: VARIANTS[VESTAL] | {"VESTAL_CONFIG": str(file)}}


def _has_schemas(server: Server) -> bool:
    return server.name.startswith(VESTAL)


def _speed(row: str, bodies: list[Body], server: Server) -> dict[str, float]:
    requests = [request(server, messages, TOKENS, **more) for messages, more in bodies]
    return {row: tokens_per_s(server, requests, from_first_text=True)}


SCENARIO = Scenario(
    "drafting",
    "tokens a second with and without guessed tokens, where an answer copies and where not",
    quick_s=70,
    full_s=1200,
    run=measure,
    full_rounds=2,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
