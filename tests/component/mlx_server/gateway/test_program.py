"""The gateway as a program: ports, configuration, signals, and what remains when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from host_agent.cli.run.server import gateway_environment
from vestal.config import load
from vestal.config.handed_down import VARIABLE
from vestal.platform import log_rotation

RSS_LIMIT_BYTES = 90 * 1024 * 1024


def _has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _failed_start(gateway) -> tuple[int, str]:
    """Start the gateway, and return its exit code and what it printed."""
    code = gateway.start().process.wait(60)
    return code, gateway.log().strip()


def test_gateway_started_on_a_busy_port_fails_and_names_its_holder_and_the_remedy(make_gateway):
    gateway = make_gateway()
    with socket.create_server(("127.0.0.1", gateway.port)):
        code, printed = _failed_start(gateway)
    assert code == 75
    assert len(printed.splitlines()) == 1
    for word in (f"port {gateway.port}", f"PID {os.getpid()}", "kill", "VESTAL_MLX_PORT"):
        assert word in printed


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"VESTAL_MLX__MAX_RUNING": "3"}, "VESTAL_MLX__MAX_RUNNING"),
        ({"VESTAL_MLX__BIND": "0.0.0.0"}, "api_key"),
    ],
)
def test_gateway_started_with_a_wrong_configuration_exits_with_78_and_names_the_setting(
    make_gateway, env, word
):
    code, printed = _failed_start(make_gateway(**env))
    assert code == 78
    assert word in printed
    assert "Traceback" not in printed


def test_gateway_that_gets_sigterm_finishes_its_stream_and_refuses_new_requests(make_gateway, text_of):
    gateway = make_gateway(VESTAL_MLX__DRAIN_S="600").start().until_ok()
    engine, content = gateway.engine_pid(), "tokens=150 hold_at=20"
    with gateway.held(), gateway.http.stream("POST", "/api/chat", json=gateway.chat(content)) as answer:
        lines = answer.iter_lines()
        text = json.loads(next(lines))["message"]["content"]
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: gateway.health()["status"] == "draining", "it drains")
        refused = gateway.http.post("/api/chat", json=gateway.chat("late"))
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert "retry-after" in refused.headers
        health = gateway.http.get("/health")
        assert (health.status_code, health.headers["retry-after"]) == (503, refused.headers["retry-after"])
        gateway.go_on()
        text += "".join(json.loads(line)["message"]["content"] for line in lines)
    assert text == text_of(content, 150)
    assert gateway.process.wait(60) == 0
    assert _has_ended(engine)
    assert gateway.events("server_shutdown_complete")
    assert not (gateway.home / "run" / "mlx_engine.json").exists()


def test_gateway_that_gets_a_second_signal_ends_running_streams_with_an_error(make_gateway):
    gateway = make_gateway(VESTAL_MLX__DRAIN_S="600").start().until_ok()
    with gateway.http.stream("POST", "/api/chat", json=gateway.chat("tokens=100000")) as answer:
        lines = answer.iter_lines()
        next(lines)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: gateway.health()["status"] == "draining", "it drains")
        gateway.process.send_signal(signal.SIGINT)
        *_, last = lines
    assert json.loads(last)["code"] == "draining"
    assert gateway.process.wait(60) == 0


def test_engine_exits_when_its_gateway_is_killed(make_gateway):
    gateway = make_gateway().start().until_ok()
    engine = gateway.engine_pid()
    gateway.process.kill()
    gateway.process.wait()
    gateway.until(lambda: _has_ended(engine), "the engine has read the end of file")
    gateway.start().until_ok()
    assert gateway.engine_pid() != engine


def test_engine_that_outlived_its_gateway_is_killed_by_the_next_gateway(make_gateway):
    gateway = make_gateway().start().until_ok()
    engine = gateway.engine_pid()
    os.kill(engine, signal.SIGSTOP)  # a stopped process cannot read the end of file
    gateway.process.kill()
    gateway.process.wait()
    assert not _has_ended(engine)
    gateway.start().until_ok()
    assert _has_ended(engine)
    assert gateway.engine_pid() != engine


def test_gateway_after_twenty_requests_is_below_its_memory_limit_and_has_not_imported_mlx(gateway):
    process = psutil.Process(gateway.process.pid)
    for number in range(20):
        gateway.http.post("/api/chat", json=gateway.chat(f"{number} tokens=5", stream=False))
    assert process.memory_info().rss < RSS_LIMIT_BYTES
    assert not [m.path for m in process.memory_maps() if "libmlx" in m.path or "numpy" in m.path]


def test_clients_that_disconnect_at_any_moment_leave_no_running_request_and_no_traceback(gateway):
    request = json.dumps(gateway.chat("tokens=1000000 step_ms=5")).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(request)}\r\n\r\n".encode()
    whole = head + request

    def disconnect(length: int, read: int) -> None:
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            sock.sendall(whole[:length])
            if read:
                with contextlib.suppress(OSError):
                    sock.recv(read)

    cuts = [(0, 0), (10, 0), (len(head), 0), (len(whole) - 1, 0), (len(whole), 0), (len(whole), 1)]
    threads = [threading.Thread(target=disconnect, args=cut) for cut in cuts * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def is_idle() -> bool:
        requests = gateway.health()["requests"]
        return (requests["running"], requests["queued"]) == (0, 0)

    gateway.until(is_idle, "no request is running or waiting")
    assert subprocess.run(["grep", "-c", "Traceback", str(gateway.home / "gateway.log")]).returncode == 1


@pytest.mark.parametrize(("filename", "code"), [("None", 75), ("'/vestal'", 78)])
def test_gateway_that_cannot_read_its_settings_exits_with_a_retryable_code_unless_the_path_is_wrong(
    filename, code
):
    """Earlier, an error without a path ended it with 78, and so for good."""
    program = f"""
import errno, sys
from mlx_server.gateway import main
def fail():
    raise OSError(errno.ENOENT, "No such file or directory", {filename})
main.load_handed_down = fail
sys.exit(main.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert "None" not in done.stderr


def test_engine_starts_with_the_settings_of_its_gateway_although_the_file_has_got_a_mistake_since(
    gateway, tmp_path
):
    """Earlier, an engine that was restarted while the file had a typo ended with 78: the gateway gave it up,
    and all waiting requests failed.
    """
    engine = psutil.Process(gateway.engine_pid()).environ()
    assert json.loads(engine[VARIABLE])["mlx"]["port"] == gateway.port
    (tmp_path / "vestal.yaml").write_text("mlx: {prot: 1}\n")
    command = [sys.executable, "-m", "mlx_server.engine", "--fd", "0"]
    env = engine | {"VESTAL_CONFIG": str(tmp_path / "vestal.yaml")}
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert "engine_started" in done.stdout + done.stderr, "it ends because it has no socket"
    assert "mlx.prot" not in done.stderr


@pytest.mark.parametrize("has_agent", [True, False])
def test_gateway_rotates_the_logs_only_if_it_runs_without_an_agent(make_gateway, has_agent: bool):
    """Under `vestal install --server-only`, no process rotated the logs, which grew without end."""
    gateway = make_gateway()
    log = gateway.home / "logs" / "server.log"
    log.parent.mkdir()
    log.write_bytes(b"x" * (log_rotation.MAX_BYTES + 1))
    if not has_agent:
        gateway.env |= gateway_environment(load({"VESTAL_HOME": str(gateway.home)}))
    gateway.start().until_ok()
    copy = log.with_name("server.log.1")
    if has_agent:
        assert not copy.exists()
    else:
        gateway.until(lambda: copy.exists() and log.stat().st_size < log_rotation.MAX_BYTES, "it is rotated")
