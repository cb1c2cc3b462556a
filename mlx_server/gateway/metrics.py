"""What /metrics shows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.request_lifecycle import RequestPhase
from mlx_server.gateway.telemetry import Telemetry
from mlx_server.protocol import Alive, PromptCacheUse


def metrics_of(engine: EngineSupervisor, dispatcher: Dispatcher, telemetry: Telemetry) -> Iterator[str]:
    """The lines of /metrics. What the engine counts begins anew with each engine."""
    child = engine.status()
    yield from _metric("engine_up", "gauge", "Whether an engine serves requests", int(engine.ready))
    yield from _metric("engine_restarts_total", "counter", "Restarts of the engine", child.restart_count)
    yield from _metric("engine_crashes_total", "counter", "Unasked ends", telemetry.engine_crashes)
    yield from _metric("engine_active_bytes", "gauge", "MLX's active memory", engine.report.active_bytes)
    yield from _of_memory(engine.report)
    yield from _of_prompt_cache(engine.report.prompt_cache)
    for phase in (RequestPhase.RUNNING, RequestPhase.QUEUED, RequestPhase.PARKED):
        yield from _metric(f"requests_{phase}", "gauge", f"Requests {phase}", dispatcher.count(phase))
    survived = telemetry.survived_crashes
    yield from _metric("requests_survived_crashes_total", "counter", "Finished across crashes", survived)
    yield from _metric("tokens_total", "counter", "Tokens given to clients", telemetry.tokens)
    yield from _family(
        "requests_total",
        "counter",
        "Finished requests",
        {
            f'dialect="{dialect}",outcome="{outcome}"': count
            for (dialect, outcome), count in sorted(telemetry.requests.items())
        },
    )
    yield from _summary(
        "request_seconds", "Duration of requests", telemetry.request_s, telemetry.requests.total()
    )
    yield from _summary(
        "first_token_seconds", "Time to first token", telemetry.first_token_s, telemetry.first_tokens
    )
    yield from _summary(
        "pause_seconds", "Pause of a stream across a crash", telemetry.pause_s, telemetry.pauses
    )


def _of_memory(report: Alive) -> Iterator[str]:
    about = "What the engine's memory ledger lets it hold"
    yield from _metric("memory_limit_bytes", "gauge", about, report.limit_bytes)
    yield from _metric("memory_in_use_bytes", "gauge", "What the engine holds", report.footprint_bytes)
    memory = report.memory
    parts = {
        'part="weights"': memory.weights_bytes,
        'part="kv"': memory.kv_bytes,
        'part="promised"': memory.promised_bytes,
        'part="prompt_cache"': memory.prompt_cache_bytes,
    }
    yield from _family("memory_bytes", "gauge", "For what (promised: kv is part of it)", parts)


def _of_prompt_cache(cache: PromptCacheUse) -> Iterator[str]:
    ram, disk = 'level="ram"', 'level="disk"'
    held = {ram: cache.ram_bytes, disk: cache.disk_bytes}
    limits = {ram: cache.ram_limit_bytes, disk: cache.disk_limit_bytes}
    hits = {ram: cache.hits_ram, disk: cache.hits_disk}
    yield from _family("prompt_cache_bytes", "gauge", "What is kept", held)
    yield from _family("prompt_cache_limit_bytes", "gauge", "What may be kept", limits)
    yield from _family("prompt_cache_hits_total", "counter", "Blocks found", hits)
    for name, about, value in (
        ("misses", "Blocks of prompts that had to be computed", cache.misses),
        ("gone", "Blocks whose file was gone", cache.gone),
        ("broken", "Blocks dropped as corrupt", cache.broken),
        ("written", "Blocks written", cache.written),
        ("written_bytes", "Bytes written", cache.written_bytes),
        ("not_written", "Blocks that could not be written", cache.not_written),
    ):
        yield from _metric(f"prompt_cache_{name}_total", "counter", about, value)


def _family(name: str, kind: str, about: str, values: Mapping[str, float]) -> Iterator[str]:
    """One metric with labels."""
    yield f"# HELP vestal_{name} {about}"
    yield f"# TYPE vestal_{name} {kind}"
    for labels, value in values.items():
        yield f"vestal_{name}{{{labels}}} {value}"


def _metric(name: str, kind: str, about: str, value: float) -> Iterator[str]:
    yield f"# HELP vestal_{name} {about}"
    yield f"# TYPE vestal_{name} {kind}"
    yield f"vestal_{name} {value}"


def _summary(name: str, about: str, total: float, count: int) -> Iterator[str]:
    yield f"# HELP vestal_{name} {about}"
    yield f"# TYPE vestal_{name} summary"
    yield f"vestal_{name}_sum {total:.6f}"
    yield f"vestal_{name}_count {count}"
