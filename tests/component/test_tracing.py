"""One trace covers orchestrator, gateway and engine, even if the engine is killed during a request."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.component.mlx_server.gateway.conftest import Gateway
from tests.component.orchestrator.conftest import Orchestrator, wait_until

pytestmark = [pytest.mark.model, pytest.mark.timeout(120)]

TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "the lighthouse of Kullen"


class Collector:
    """A fake OTLP collector. While `hangs` is true, it sends no responses."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.hangs = threading.Event()
        self._ended = threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if collector.hangs.is_set():
                    collector._ended.wait(30)
                    return
                collector.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def spans(self) -> list[dict[str, Any]]:
        """Return the received spans, each with the name of its service."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                about = {each.key: each.value.string_value for each in resource.resource.attributes}
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    found.append(
                        {
                            "service": about["service.name"],
                            "name": span.name,
                            "trace": span.trace_id.hex(),
                            "id": span.span_id.hex(),
                            "parent": span.parent_span_id.hex(),
                            "events": [event.name for event in span.events],
                            "s": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        }
                    )
        return found

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def test_trace_of_a_task_has_spans_of_orchestrator_gateway_and_engine_despite_an_engine_kill(
    collector: Collector,
    home: Path,
    small_models_dir: Path,
    repo: Path,
    tmp_path: Path,
    free_port: Callable[[], int],
):
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    models = {"VESTAL_MODELS_DIR": str(small_models_dir), "VESTAL_MLX__PROGRESS_TIMEOUT_S": "30"}
    gateway = Gateway(home, free_port(), "-m", "mlx_server.gateway", **models, **traced).start()
    # 120 tokens took 0.7 s: on a busy machine the answer was complete before the kill came.
    sizes = {"VESTAL_MAX_ANSWER_TOKENS": "800", "VESTAL_CONTEXT_TOKENS": "2048"}
    settings = {"MLX_API_URL": gateway.url, **sizes}
    orchestrator = Orchestrator(repo, tmp_path, free_port(), **settings, **traced)
    try:
        gateway.until(lambda: gateway.health()["status"] == "ok", "the real engine is ready", 90)
        orchestrator.start()
        body = {"goal": f"Tell a story about {SECRET}.", "agents": ["lead"]}
        header = {"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"}
        status, accepted = orchestrator.ask("/tasks", body, headers=header)
        assert status == 201, accepted

        def is_in_the_middle() -> bool:
            listed = gateway.http.get("/requests").json()["requests"]
            return any((request["tokens"] or 0) > 5 for request in listed)

        gateway.until(is_in_the_middle, "the answer has begun", 60)
        gateway.kill_engine()
        done = wait_until(
            "the task is done",
            lambda: (t := orchestrator.ask(f"/tasks/{accepted['id']}")[1])["state"] == "done" and t,
            60,
        )
        assert done["answer"]
        assert gateway.events("request_resumed"), "the kill came in the middle of the answer"

        def found() -> list[dict[str, Any]]:
            return [span for span in collector.spans() if span["trace"] == TRACE]

        names = {"task accepted", "step answer", "POST /api/chat", "prefill", "decode"}
        spans = wait_until(
            "all spans have come", lambda: {s["name"] for s in found()} >= names and found(), 20
        )
        assert {span["service"] for span in spans} == {
            "vestal-orchestrator",
            "vestal-gateway",
            "vestal-engine",
        }
        by_name = {span["name"]: span for span in spans}
        chat, step, task = by_name["POST /api/chat"], by_name["step answer"], by_name["task accepted"]
        assert (task["parent"], step["parent"], chat["parent"]) == (CLIENT_SPAN, task["id"], step["id"])
        assert chat["events"] == ["crash", "resumed"]
        for name in ("queue wait in the gateway", "queue wait in the engine", "prefill", "decode"):
            assert by_name[name]["parent"] == chat["id"], name
            assert by_name[name]["s"] <= chat["s"]
        assert not [body for body in collector.bodies if SECRET.encode() in body], "no prompt is in a span"

        # A collector that hangs must delay neither answers nor a shutdown.
        collector.hangs.set()
        asked = gateway.chat("Go on.") | {"model": "smollm2:135m", "stream": False}
        for _ in range(3):
            began = time.monotonic()
            reply = gateway.http.post("/api/chat", json=asked | {"options": {"num_predict": 4}})
            assert reply.status_code == 200, reply.text
            assert time.monotonic() - began < 5
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 12
    finally:
        orchestrator.end()
        gateway.stop()
