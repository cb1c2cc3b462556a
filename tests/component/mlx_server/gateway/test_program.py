"""The gateway as a program: ports, configuration, signals, and what is left when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading

import psutil
import pytest

RSS_LIMIT_BYTES = 90 * 1024 * 1024


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _fails(gateway) -> tuple[int, str]:
    code = gateway.start().process.wait(15)
    return code, gateway.log().strip()


def test_busy_port_is_named_with_its_holder_and_the_remedy(make_gateway):
    gateway = make_gateway()
    with socket.create_server(("127.0.0.1", gateway.port)):
        code, told = _fails(gateway)
    assert code == 75
    assert len(told.splitlines()) == 1
    for word in (f"port {gateway.port}", f"PID {os.getpid()}", "kill", "VESTAL_MLX_PORT"):
        assert word in told


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"VESTAL_MLX__MAX_RUNING": "3"}, "VESTAL_MLX__MAX_RUNNING"),
        ({"VESTAL_MLX__BIND": "0.0.0.0"}, "api_key"),
    ],
)
def test_wrong_configuration_ends_the_start_with_a_sentence(make_gateway, env, word):
    code, told = _fails(make_gateway(**env))
    assert code == 78
    assert word in told
    assert "Traceback" not in told


def test_sigterm_lets_the_stream_in_flight_finish_and_refuses_the_new(make_gateway, text_of):
    gateway = make_gateway().start().until_ok()
    engine, content = gateway.engine_pid(), "tokens=150 step_ms=5"
    with gateway.http.stream("POST", "/api/chat", json=gateway.chat(content)) as answer:
        lines = answer.iter_lines()
        text = json.loads(next(lines))["message"]["content"]
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: gateway.health()["status"] == "draining", "it drains")
        refused = gateway.http.post("/api/chat", json=gateway.chat("late"))
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert "retry-after" in refused.headers
        text += "".join(json.loads(line)["message"]["content"] for line in lines)
    assert text == text_of(content, 150)
    assert gateway.process.wait(10) == 0
    assert _ended(engine)
    assert gateway.events("server_shutdown_complete")
    assert not (gateway.home / "run" / "mlx_engine.json").exists()


def test_second_signal_cuts_the_drain_short_and_tells_the_client(make_gateway):
    gateway = make_gateway(VESTAL_MLX__DRAIN_S="600").start().until_ok()
    with gateway.http.stream("POST", "/api/chat", json=gateway.chat("tokens=100000")) as answer:
        lines = answer.iter_lines()
        next(lines)
        gateway.process.send_signal(signal.SIGTERM)
        gateway.until(lambda: gateway.health()["status"] == "draining", "it drains")
        gateway.process.send_signal(signal.SIGINT)
        *_, last = lines
    assert json.loads(last)["code"] == "draining"
    assert gateway.process.wait(10) == 0


def test_gateway_killed_takes_its_engine_along(make_gateway):
    gateway = make_gateway().start().until_ok()
    engine = gateway.engine_pid()
    gateway.process.kill()
    gateway.process.wait()
    gateway.until(lambda: _ended(engine), "the engine has seen the end of file", 5)
    gateway.start().until_ok()
    assert gateway.engine_pid() != engine


def test_engine_that_outlived_its_gateway_is_ended_by_the_next_one(make_gateway):
    gateway = make_gateway().start().until_ok()
    engine = gateway.engine_pid()
    os.kill(engine, signal.SIGSTOP)  # it cannot see the end of file
    gateway.process.kill()
    gateway.process.wait()
    assert not _ended(engine)
    gateway.start().until_ok()
    assert _ended(engine)
    assert gateway.engine_pid() != engine


def test_gateway_after_work_is_small_and_has_not_imported_mlx(gateway):
    process = psutil.Process(gateway.process.pid)
    for number in range(20):
        gateway.http.post("/api/chat", json=gateway.chat(f"{number} tokens=5", stream=False))
    assert process.memory_info().rss < RSS_LIMIT_BYTES
    assert not [m.path for m in process.memory_maps() if "libmlx" in m.path or "numpy" in m.path]


def test_clients_that_hang_up_at_any_moment_leave_nothing_behind(gateway):
    request = json.dumps(gateway.chat("tokens=1000 step_ms=5")).encode()
    head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(request)}\r\n\r\n".encode()
    whole = head + request

    def hang_up(length: int, read: int) -> None:
        with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
            sock.sendall(whole[:length])
            if read:
                with contextlib.suppress(OSError):
                    sock.recv(read)

    cuts = [(0, 0), (10, 0), (len(head), 0), (len(whole) - 1, 0), (len(whole), 0), (len(whole), 1)]
    threads = [threading.Thread(target=hang_up, args=cut) for cut in cuts * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gateway.until(lambda: gateway.health()["requests"]["running"] == 0, "no place is held", 3)
    assert gateway.health()["requests"]["queued"] == 0
    assert subprocess.run(["grep", "-c", "Traceback", str(gateway.home / "gateway.log")]).returncode == 1
