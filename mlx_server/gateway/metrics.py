"""The metrics of the gateway and its engine that GET /metrics returns, as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterator

from mlx_server.gateway.engine_process.supervisor import EngineSupervisor
from mlx_server.gateway.requests.dispatcher import Dispatcher
from mlx_server.gateway.requests.table.request_lifecycle import RequestPhase
from mlx_server.gateway.telemetry import EngineCounts, Telemetry
from mlx_server.protocol import Alive, PromptCacheUse
from vestal.web.metrics import CONTENT_TYPE, Metric, counter, gauge, histogram, render, summary

__all__ = ["CONTENT_TYPE", "text"]
SHOWN_PHASES = (RequestPhase.RUNNING, RequestPhase.QUEUED, RequestPhase.PARKED)


def text(engine: EngineSupervisor, dispatcher: Dispatcher, telemetry: Telemetry) -> str:
    """Return the metrics of the gateway, its engine and its requests as Prometheus text. The counters of the
    prompt cache start at 0 with each engine; all other counters cover all engines of this gateway.
    """
    return render(
        [
            *_of_engine(engine, telemetry),
            *_of_memory(engine.report),
            *_of_prompt_cache(engine.report.prompt_cache),
            *_of_drafts(telemetry.of_engines),
            *_of_requests(dispatcher, telemetry),
        ]
    )


def _of_engine(engine: EngineSupervisor, telemetry: Telemetry) -> Iterator[Metric]:
    restarts, crashes = engine.status().restart_count, telemetry.engine_crashes
    yield gauge("vestal_engine_up", "Whether an engine serves requests", int(engine.ready))
    yield counter("vestal_engine_restarts_total", "Restarts of the engine", restarts)
    yield counter("vestal_engine_crashes_total", "Unplanned exits of the engine", crashes)
    yield gauge("vestal_engine_active_bytes", "MLX's active memory", engine.report.active_bytes)


def _of_memory(report: Alive) -> Iterator[Metric]:
    memory, about = report.memory, "Memory by use (promised: kv is part of it)"
    parts = {
        ("weights",): memory.weights_bytes,
        ("kv",): memory.kv_bytes,
        ("promised",): memory.promised_bytes,
        ("prompt_cache",): memory.prompt_cache_bytes,
    }
    yield gauge("vestal_memory_limit_bytes", "What the engine may hold", report.limit_bytes)
    yield gauge("vestal_memory_in_use_bytes", "What the engine holds", report.footprint_bytes)
    yield gauge("vestal_memory_bytes", about, parts, ("part",))


def _of_prompt_cache(cache: PromptCacheUse) -> Iterator[Metric]:
    by_level = ("level",)
    held = {("ram",): cache.ram_bytes, ("ready",): cache.ready_bytes, ("disk",): cache.disk_bytes}
    limits = {("ram",): cache.ram_limit_bytes, ("disk",): cache.disk_limit_bytes}
    hits = {("ram",): cache.hits_ram, ("disk",): cache.hits_disk}
    yield gauge("vestal_prompt_cache_bytes", "Size of the cache", held, by_level)
    yield gauge("vestal_prompt_cache_limit_bytes", "Limit of the cache's size", limits, by_level)
    yield counter("vestal_prompt_cache_hits_total", "Blocks found", hits, by_level)
    for name, about, value in (
        ("misses", "Blocks of prompts that had to be computed", cache.misses),
        ("gone", "Blocks whose file was gone", cache.gone),
        ("broken", "Blocks dropped as corrupt", cache.broken),
        ("written", "Blocks written", cache.written),
        ("written_bytes", "Bytes written", cache.written_bytes),
        ("not_written", "Blocks that could not be written", cache.not_written),
    ):
        yield counter(f"vestal_prompt_cache_{name}_total", about, value)


def _of_drafts(counts: EngineCounts) -> Iterator[Metric]:
    sources = ("lookup", "model")
    guessed = {(source,): counts[f"{source}_guessed"] for source in sources}
    accepted = {(source,): counts[f"{source}_accepted"] for source in sources}
    about = "Guessed tokens, from the text itself and its grammar (lookup) or from a draft model (model)"
    yield counter("vestal_draft_tokens_guessed_total", about, guessed, ("source",))
    about = "Guessed tokens that were right, each of which saved a step"
    yield counter("vestal_draft_tokens_accepted_total", about, accepted, ("source",))


def _of_requests(dispatcher: Dispatcher, telemetry: Telemetry) -> Iterator[Metric]:
    for phase in SHOWN_PHASES:
        yield gauge(f"vestal_requests_{phase}", f"Requests {phase}", dispatcher.count(phase))
    survived, finished = telemetry.survived_crashes, dict(sorted(telemetry.requests.items()))
    about = "Requests that finished although the engine died"
    yield counter("vestal_requests_survived_crashes_total", about, survived)
    about = "Tokens of the prompts whose answers have begun"
    yield counter("vestal_prompt_tokens_total", about, telemetry.prompt_tokens)
    yield counter("vestal_tokens_total", "Tokens sent to clients", telemetry.tokens)
    yield counter("vestal_requests_total", "Finished requests", finished, ("dialect", "outcome"))
    request_s, requests = telemetry.request_s, telemetry.requests.total()
    first, pause = telemetry.first_token_s, telemetry.pause_s
    yield summary("vestal_request_seconds", "Duration of requests", request_s, requests)
    about = "Time from a request's arrival to its first token"
    yield summary("vestal_first_token_seconds", about, first.total, first.count)
    yield histogram("vestal_time_to_first_token_seconds", about, first)
    about = "Time that a stream paused across an engine's death"
    yield summary("vestal_pause_seconds", about, pause.total, pause.count)
    yield histogram("vestal_stream_pause_seconds", about, pause)
