"""A gateway whose installed program has changed: engines that are started from then on do not fit it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from mlx_server.protocol.digest import DIGEST_VARIABLE, EXIT_OTHER_PROTOCOL
from tests.component.mlx_server.gateway.conftest import REPO


def test_real_engine_under_a_gateway_with_another_protocol_exits_with_76_and_says_what_to_do(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", "mlx_server.engine", "--fd", "0"],
        env={**os.environ, "VESTAL_HOME": str(tmp_path), "PYTHONPATH": str(REPO), DIGEST_VARIABLE: "another"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == EXIT_OTHER_PROTOCOL
    assert len(ended.stderr.splitlines()) == 1 and "vestal up" in ended.stderr


def test_gateway_without_agent_exits_with_its_engine_after_a_code_change_and_the_next_continues_the_answer(
    make_gateway, text_of
):
    gateway = make_gateway().start().until_ok()
    content, key = "tokens=60 step_ms=20", {"idempotency-key": "across the update"}
    body = gateway.chat(content, stream=True)
    with gateway.http.stream("POST", "/api/chat", json=body, headers=key) as answer:
        next(answer.iter_lines())
        (gateway.home / "fake_engine.json").write_text(json.dumps({"exit_code": EXIT_OTHER_PROTOCOL}))
        gateway.kill_engine()
        assert gateway.process.wait(60) == 75
    (stopping,) = gateway.events("server_stopping")
    assert "start `vestal server` again" in stopping["cause"]
    assert not gateway.events("breaker_opened") and not gateway.events("requests_lost")
    (gateway.home / "fake_engine.json").unlink()
    gateway.start().until_ok()
    again = gateway.http.post("/api/chat", json=body, headers=key)
    text = "".join(json.loads(line)["message"]["content"] for line in again.text.splitlines())
    assert text == text_of(content, 60)


def test_gateway_whose_next_standby_engine_does_not_fit_keeps_its_engine_and_serves(make_gateway):
    """The program changes between the start of the engine and that of its standby."""
    gateway = make_gateway({"standby_exit_code": EXIT_OTHER_PROTOCOL}, VESTAL_MLX__WARM_SPARE="true")
    pid = gateway.start().until_ok().engine_pid()
    gateway.until(lambda: gateway.events("program_changed"), "the change is reported")
    assert gateway.http.post("/api/chat", json=gateway.chat("hello", stream=False)).status_code == 200
    assert (gateway.engine_pid(), gateway.health()["status"]) == (pid, "ok")


def test_gateway_whose_first_engine_has_another_protocol_keeps_running_and_answers_503_with_the_reason(
    make_gateway,
):
    gateway = make_gateway({"exit_code": EXIT_OTHER_PROTOCOL}).start()
    gateway.until(lambda: gateway.health()["status"] == "failed", "the engine is given up")
    refused = gateway.http.post("/api/chat", json=gateway.chat("hello", stream=False))
    assert refused.status_code == 503 and "exit code 76" in refused.json()["error"]
    assert gateway.process.poll() is None
