"""/api/ps, /health and /metrics show the engine's figures for memory and prompt cache."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]
MODEL = "smollm2:135m"


def shown_by_ps(gateway: Any) -> dict[str, Any]:
    """Return the model as /api/ps shows it, which it does after the engine's next report."""
    shown: list[dict[str, Any]] = gateway.until(
        lambda: [m for m in gateway.http.get("/api/ps").json()["models"] if m["name"] == MODEL],
        "the model is shown",
    )
    return shown[0]


def ask(gateway: Any, tokens: int) -> None:
    options = {"temperature": 0, "num_predict": tokens, "seed": 1}
    messages = [{"role": "user", "content": "Count the ships that came in: 1, 2, 3, 4, 5, 6, 7 and so on."}]
    answer = gateway.http.post(
        "/api/chat",
        json={"model": MODEL, "messages": messages, "options": options, "stream": False},
        timeout=60,
    )
    assert answer.status_code == 200


def metrics(gateway: Any) -> dict[str, float]:
    lines = gateway.http.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}


def test_ps_size_is_the_weights_and_the_kv_cache_in_use(real_gateway):
    """As in Ollama, `size` is all memory of a model, and `size_vram` the part of it on the GPU."""
    real_gateway.until(lambda: real_gateway.health()["memory"]["kv_bytes"] == 0, "no request is in memory")
    weights = shown_by_ps(real_gateway)["size"]
    has_grown = threading.Event()

    def ask_until_it_has_grown() -> None:  # on a busy machine, one answer may be over before a look
        while not has_grown.is_set():
            ask(real_gateway, 60)

    asking = threading.Thread(target=ask_until_it_has_grown)
    asking.start()
    try:
        busy = real_gateway.until(
            lambda: model if (model := shown_by_ps(real_gateway))["size"] > weights else None,
            "the size has grown",
        )
    finally:
        has_grown.set()
        asking.join()
    assert busy["size_vram"] == (busy["size"] if sys.platform == "darwin" else 0)
    real_gateway.until(lambda: shown_by_ps(real_gateway)["size"] == weights, "the KV cache is freed")


def test_health_and_metrics_report_the_same_memory_and_prompt_cache_figures(real_gateway):
    for _ in range(2):
        ask(real_gateway, 4)

    def idle_after_a_hit() -> dict[str, Any] | None:
        """Return the health once the figures, up to half a second old, are those of an idle engine."""
        health = real_gateway.health()
        held = health["memory"]["kv_bytes"], health["memory"]["promised_bytes"]
        return health if health["prompt_cache"]["hits_ram"] and held == (0, 0) else None

    health = real_gateway.until(idle_after_a_hit, "there is a hit, and no memory is held")
    memory, cache = health["memory"], health["prompt_cache"]
    assert memory["weights_bytes"] > 500_000_000
    assert memory["weights_bytes"] < memory["in_use_bytes"] < memory["limit_bytes"]
    assert cache["ram_bytes"] > 0 and cache["ready_bytes"] > 0
    assert memory["prompt_cache_bytes"] == cache["ram_bytes"] + cache["ready_bytes"]
    assert cache["misses"] > 0
    real_gateway.until(lambda: real_gateway.health()["prompt_cache"]["written_bytes"] > 0, "it is written")

    def figures_of_one_report() -> tuple[dict[str, int], dict[str, float]] | None:
        """Return the figures of both, unless the engine has reported others between the two looks."""
        cache, shown = real_gateway.health()["prompt_cache"], metrics(real_gateway)
        return (cache, shown) if real_gateway.health()["prompt_cache"] == cache else None

    cache, shown = real_gateway.until(figures_of_one_report, "the figures stay as they are")
    assert shown['vestal_memory_bytes{part="weights"}'] == memory["weights_bytes"]
    assert shown["vestal_memory_limit_bytes"] == memory["limit_bytes"]
    assert shown['vestal_prompt_cache_bytes{level="ram"}'] == cache["ram_bytes"]
    assert shown['vestal_prompt_cache_bytes{level="ready"}'] == cache["ready_bytes"]
    assert shown['vestal_prompt_cache_bytes{level="disk"}'] == cache["disk_bytes"]
    assert shown['vestal_prompt_cache_hits_total{level="ram"}'] == cache["hits_ram"]
    assert shown["vestal_prompt_cache_misses_total"] == cache["misses"]
    assert shown["vestal_prompt_cache_written_bytes_total"] == cache["written_bytes"]


def test_metrics_count_the_accepted_draft_tokens_of_an_answer_that_repeats_its_prompt(real_gateway):
    prompt = "Owl: 🦉. Owl: 🦉. Owl: 🦉. Owl:"
    body = {"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 30}
    assert real_gateway.http.post("/v1/completions", json=body, timeout=60).status_code == 200
    counted = 'vestal_draft_tokens_{}_total{{source="lookup"}}'
    accepted = real_gateway.until(lambda: metrics(real_gateway)[counted.format("accepted")], "it is counted")
    assert metrics(real_gateway)[counted.format("guessed")] >= accepted
    assert real_gateway.health()["totals"]["draft_tokens_accepted"] >= accepted


def test_prompt_cache_figures_restart_at_zero_with_a_new_engine_while_totals_continue(real_gateway):
    ask(real_gateway, 4)
    real_gateway.until(lambda: real_gateway.health()["prompt_cache"]["written_bytes"] > 0, "it is written")
    drafted = real_gateway.health()["totals"]["draft_tokens_accepted"]
    pid = real_gateway.engine_pid()
    real_gateway.kill_engine()
    real_gateway.until(
        lambda: real_gateway.health()["engine"]["pid"] not in (None, pid), "another engine runs", 60
    )
    real_gateway.until(lambda: real_gateway.health()["status"] == "ok", "it serves", 60)
    assert real_gateway.health()["prompt_cache"]["hits_ram"] == 0
    assert real_gateway.health()["totals"]["draft_tokens_accepted"] >= drafted, "it counts over all engines"
    ask(real_gateway, 4)
    real_gateway.until(lambda: real_gateway.health()["prompt_cache"]["hits_disk"] > 0, "hits from disk")
