"""The creation of models beside other requests."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_server.gateway.dialects.ollama.creation import Creation
from mlx_server.gateway.dialects.ollama.model_bodies import CreateBody
from mlx_server.gateway.requests.ticket import ClientDisconnected
from mlx_server.model_store import making


async def test_model_conversions_block_no_other_request_and_do_not_begin_for_clients_that_have_left(
    monkeypatch,
):
    """With one conversion for each thread, no other request found its model until one had ended."""
    begun, may_end, converted = threading.Semaphore(0), threading.Event(), list[str]()

    def convert(_config: Any, name: str, *_: Any) -> None:
        converted.append(name)
        begun.release()
        assert may_end.wait(30)

    monkeypatch.setattr(making, "make_of_files", convert)
    pulls: Any = None
    context: Any = SimpleNamespace(config=None, installed_models=SimpleNamespace(changed=lambda: None))
    names = ["a", "b", "c", "left"]
    bodies = [CreateBody(model=name, files={"m.gguf": f"sha256:{'0' * 64}"}) for name in names]
    creations = [Creation(context, pulls, body) for body in bodies]
    with ThreadPoolExecutor(2) as threads_of_requests:
        asyncio.get_running_loop().set_default_executor(threads_of_requests)
        tasks = [asyncio.create_task(creation.finished()) for creation in creations]
        for _ in range(2):
            await asyncio.to_thread(begun.acquire)
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "found"), 10) == "found"
        assert sorted(converted) == ["a", "b"]  # in the order in which the two threads began to run
        creations[3].cancel()
        may_end.set()
        await asyncio.gather(*tasks[:3])
        with pytest.raises(ClientDisconnected):
            await tasks[3]
    assert (sorted(converted[:2]), converted[2:]) == (["a", "b"], ["c"])
