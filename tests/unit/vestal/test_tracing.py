"""Tracing is off and costs nothing unless it is configured; an unreachable collector delays nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, cast

import pytest

from mlx_server.engine.request_spans import EngineSpans
from mlx_server.protocol import Done, Embed, Embedding, Failed, Generate, Rerank, Reranked, Usage
from vestal.tracing import open_tracer


def test_tracing_without_an_endpoint_is_off_and_imports_nothing(monkeypatch):
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert open_tracer("vestal-test", print) is None
    program = (
        "import sys, mlx_server.gateway.main, mlx_server.engine.link, orchestrator.container\n"
        "from vestal.tracing import open_tracer\n"
        "assert open_tracer('x', print) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


def test_tracer_with_an_unreachable_collector_never_blocks_and_reports_once():
    """This runs in a process of its own, because the SDK's thread continues to retry at random delays."""
    program = """
import time
from vestal.tracing import open_tracer
said = []
tracer = open_tracer("vestal-test", said.append)
assert tracer is not None
took = []
while len(took) < 3 and min(took, default=4) >= 4:  # a busy machine does not delay all of them
    began = time.monotonic()
    for _ in range(3000):  # more than the queue holds; a single attempt to send may take 5 s
        tracer.record("decode", None, 1.0, 2.0)
    took.append(time.monotonic() - began)
assert min(took) < 4
span = tracer.start("POST /api/chat", "nonsense", serves=True)
assert span.traceparent.startswith("00-")
span.end()
began = time.monotonic()
tracer.close()
assert time.monotonic() - began < 6
assert len(said) <= 1, said
"""
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"), ("OTEL_SPAN_LINK_COUNT_LIMIT", "many")],
)
def test_tracing_with_a_wrong_variable_is_off_and_reported_with_the_remedy(name: str, value: str):
    """The SDK raises ValueError when it is imported, which once ended the gateway at its start."""
    program = (
        "from vestal.tracing import open_tracer\n"
        "said = []\n"
        "assert open_tracer('vestal-test', said.append) is None\n"
        "print(*said)"
    )
    env = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: value}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=110
    )
    assert done.stdout.startswith(f"Tracing cannot begin, so no traces are sent: {name} must be"), done.stderr
    assert "Correct the environment variables OTEL_" in done.stdout


class FakeTracer:
    """A tracer that keeps the recorded spans."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str, float, float, str]] = []

    def record(
        self, name: str, parent: str, began: float, ended: float, *, error: str, attributes: Any
    ) -> None:
        self.recorded.append((name, parent, began, ended, error))


def test_trace_spans_of_an_answer_are_queue_wait_prefill_and_decode():
    tracer, now = FakeTracer(), [100.0]
    spans = EngineSpans(cast(Any, tracer), lambda: now[0])
    spans.received(Generate("a", "m", "text", prompt="x", traceparent="00-a-b-01"))
    spans.received(Generate("untraced", "m", "text", prompt="x"))
    now[0] = 110.0
    spans.sent(Done("untraced", "stop", Usage(1, 1)))
    spans.sent(Done("a", "stop", Usage(5, 7, prefill_s=2.0, decode_s=3.0)))
    assert [(name, began, ended) for name, _, began, ended, _ in tracer.recorded] == [
        ("queue wait in the engine", 100.0, 105.0),
        ("prefill", 105.0, 107.0),
        ("decode", 107.0, 110.0),
    ]
    assert {parent for _, parent, *_ in tracer.recorded} == {"00-a-b-01"}


@pytest.mark.parametrize(
    ("op", "answer", "name"),
    [
        (Embed("a", "m", ("x",), traceparent="00-a-b-01"), Embedding("a", "", 3, 5, embed_s=4.0), "embed"),
        (
            Rerank("a", "m", "q", ("x",), traceparent="00-a-b-01"),
            Reranked("a", (0.5,), 5, rank_s=4.0),
            "rank",
        ),
    ],
)
def test_trace_spans_of_embeddings_and_rerankings_are_queue_wait_and_computation(op, answer, name):
    tracer, now = FakeTracer(), [100.0]
    spans = EngineSpans(cast(Any, tracer), lambda: now[0])
    spans.received(op)
    now[0] = 110.0
    spans.sent(answer)
    assert [(name, began, ended) for name, _, began, ended, _ in tracer.recorded] == [
        ("queue wait in the engine", 100.0, 106.0),
        (name, 106.0, 110.0),
    ]


@pytest.mark.parametrize("code", ["context_exceeded"])
def test_trace_span_of_a_failed_request_has_its_error(code):
    tracer = FakeTracer()
    spans = EngineSpans(cast(Any, tracer), lambda: 1.0)
    spans.received(Generate("a", "m", "text", prompt="x", traceparent="00-a-b-01"))
    spans.sent(Failed("a", code, "too long"))
    assert tracer.recorded == [("failed", "00-a-b-01", 1.0, 1.0, code)]
