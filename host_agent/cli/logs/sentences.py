"""Describe an event of a log in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from host_agent.cli.logs.log_line import LogLine
from host_agent.sentences import as_sentence
from vestal.config.units import format_size

Fields = Mapping[str, Any]
MOST_FIELD_CHARS = 200
NOT_SHOWN = frozenset({"level", "logger", "traceback", "seq"})
EMPTY: tuple[object, ...] = (None, "", [], {})
SUPERVISOR_STARTED = "the supervisor started"
"""The cause of every first start. Sentences leave it out, because it tells a person nothing."""


def sentence_of(line: LogLine) -> str:
    """Return a sentence about the event of a log line. If the line is no event, return its text unchanged."""
    if not line.event:
        return line.cause
    if (template := _TEMPLATES.get(line.event)) is not None:
        try:
            return template(line.cause.strip(), line.fields)
        except (KeyError, TypeError, ValueError, OverflowError):
            pass  # another version of Vestal wrote the event, with other fields
    return _any_event(line)


def _any_event(line: LogLine) -> str:
    """Describe an event that has no template: by its name, its cause and its fields."""
    name = line.event.replace("_", " ")
    fields = ", ".join(
        f"{key} {_shown(value)}"
        for key, value in line.fields.items()
        if key not in NOT_SHOWN and value not in EMPTY
    )
    text = f"{name}: {line.cause.strip()}" if line.cause.strip() else name
    return as_sentence(f"{text.rstrip('.')} ({fields})" if fields else text)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        value = [f"{key}: {of_key}" for key, of_key in value.items()]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MOST_FIELD_CHARS else f"{text[:MOST_FIELD_CHARS]}…"


def _plus_cause(text: str, cause: str) -> str:
    if not cause or cause == SUPERVISOR_STARTED:
        return as_sentence(text)
    return as_sentence(f"{text}: {cause}")


def _child_exited(cause: str, fields: Fields) -> str:
    return as_sentence(f"PID {fields['pid']} ended: {cause or 'the reason is not known'}")


def _child_restarting(cause: str, fields: Fields) -> str:
    delay_s = float(fields["delay_s"])
    when = f"in {delay_s:.1f} s" if delay_s else "at once"
    return _plus_cause(f"It is started again {when}", cause)


def _child_started(cause: str, fields: Fields) -> str:
    restarts = fields.get("restarts")
    return _plus_cause(
        f"Started as PID {fields['pid']}" + (f" (restart {restarts})" if restarts else ""), cause
    )


def _child_ready(cause: str, fields: Fields) -> str:
    return f"Ready, {float(fields['start_s']):.1f} s after its start (PID {fields['pid']})."


def _cycle_finished(cause: str, fields: Fields) -> str:
    phases = "; ".join(f"{name} {outcome}" for name, outcome in dict(fields["phases"]).items())
    took = f"took {float(fields['duration_s']):.1f} s"
    return as_sentence(f"Cycle {fields['id']} ({cause}) {took}: {phases}")


def _breaker_opened(cause: str, fields: Fields) -> str:
    return _plus_cause(f"Given up for {float(fields['open_s']):.0f} s, because it keeps failing", cause)


def _request_finished(cause: str, fields: Fields) -> str:
    took = f"{float(fields['ms']) / 1000:.1f} s"
    crashes = int(fields.get("crashes") or 0)
    survived = f", across {crashes} crash{'es' * (crashes > 1)} of the engine" if crashes else ""
    text = (
        f"Request {fields['id']} ({fields['dialect']}, {fields['model']}): {fields['outcome']} after {took}"
    )
    return _plus_cause(f"{text}, {fields['tokens']} tokens{survived}", cause)


def _request_resumed(cause: str, fields: Fields) -> str:
    paused_s = float(fields["paused_ms"]) / 1000
    return (
        f"Request {fields['id']} goes on after its token {fields['emitted']}; the pause was {paused_s:.1f} s."
    )


def _requests_parked(cause: str, fields: Fields) -> str:
    count = int(fields["count"])
    return f"{count} request{'s wait' if count != 1 else ' waits'} for the engine to come back."


def _requests(fields: Fields) -> str:
    count = int(fields["count"])
    return f"{count} request{'' if count == 1 else 's'}"


def _goes_on(fields: Fields) -> str:
    return "goes on" if int(fields["count"]) == 1 else "go on"


def _model_loaded(cause: str, fields: Fields) -> str:
    size = format_size(float(fields["bytes"]))
    return f"Loaded {fields['model']} ({size}) in {float(fields['load_s']):.1f} s."


def _engine_ready(cause: str, fields: Fields) -> str:
    loaded = ", ".join(fields["loaded"]) or "no model"
    return f"The engine is ready with {loaded} after {float(fields['start_s']):.1f} s."


def _listening(cause: str, fields: Fields) -> str:
    where = " and ".join(f"{address}:{fields['port']}" for address in fields["addresses"])
    return f"Listens on {where}" + (f" ({cause})." if cause else ".")


def _recovery_finished(cause: str, fields: Fields) -> str:
    outcome = "all is healthy" if fields.get("healthy") else "not all is healthy"
    took = f" in {float(fields['took_s']):.1f} s" if "took_s" in fields else ""
    return _plus_cause(f"A recovery pass ended{took}, {outcome}", cause)


def _prompt_shortened(cause: str, fields: Fields) -> str:
    return _plus_cause(f"The prompt of request {fields['id']} for {fields['model']} was shortened", cause)


def _cache_opened(cause: str, fields: Fields) -> str:
    return f"The prompt cache on disk has {fields['blocks']} blocks, {format_size(float(fields['bytes']))}."


def _model_unloaded(cause: str, fields: Fields) -> str:
    return _plus_cause(f"Unloaded {fields['model']}", cause)


def _logged(cause: str, fields: Fields) -> str:
    trace = str(fields.get("traceback") or "").strip()
    return as_sentence(cause) + (f"\n{trace}" if trace else "")


_TEMPLATES: dict[str, Callable[[str, Fields], str]] = {
    "address_bound": lambda cause, fields: f"Listens on {fields['address']} ({cause}).",
    "agent_started": lambda cause, fields: (
        f"The agent has started on port {fields['port']} ({fields['mode']}: {cause})."
    ),
    "agent_stopped": lambda cause, fields: "The agent has stopped.",
    "agent_stopping": lambda cause, fields: "The agent stops.",
    "answers_taken_up": lambda cause, fields: (
        f"{_requests(fields)} of an earlier gateway {_goes_on(fields)}."
    ),
    "backend_healthy": lambda cause, fields: f"{fields['backend']} answers.",
    "backend_lost": lambda cause, fields: _plus_cause(f"{fields['backend']} does not answer", cause),
    "breaker_closed": lambda cause, fields: _plus_cause(
        "It works again; failures are counted from zero", cause
    ),
    "breaker_half_opened": lambda cause, fields: "It is tried once more.",
    "breaker_opened": _breaker_opened,
    "cache_opened": _cache_opened,
    "child_adopted": lambda cause, fields: (
        f"It was running already as PID {fields['pid']}, and is supervised again."
    ),
    "child_exited": _child_exited,
    "child_gave_up": lambda cause, fields: _plus_cause("It is not started again", cause),
    "child_killed": lambda cause, fields: _plus_cause(f"PID {fields['pid']} was killed", cause),
    "child_ready": _child_ready,
    "child_restarting": _child_restarting,
    "child_started": _child_started,
    "child_stopped": lambda cause, fields: _plus_cause("Stopped", cause),
    "container_died": lambda cause, fields: _plus_cause("The container died", cause),
    "container_healthy": lambda cause, fields: "The container is healthy again.",
    "cycle_finished": _cycle_finished,
    "engine_greeted": lambda cause, fields: f"The engine is there: PID {fields['pid']}, MLX {fields['mlx']}.",
    "engine_killed_for_memory": lambda cause, fields: "The kernel killed the engine for want of memory.",
    "engine_link_closed": lambda cause, fields: (
        f"The connection to the engine (PID {fields['pid']}) has closed."
    ),
    "engine_ready": _engine_ready,
    "engine_started": lambda cause, fields: f"The engine starts as PID {fields['pid']}.",
    "leftovers_killed": lambda cause, fields: _plus_cause("Killed the processes that were left over", cause),
    "listening": _listening,
    "logged": _logged,
    "machine_woke": lambda cause, fields: _plus_cause("The machine woke", cause),
    "model_loaded": _model_loaded,
    "model_unloaded": _model_unloaded,
    "nightly_started": lambda cause, fields: f"The nightly run is planned for {fields['next_run']}.",
    "notice_delivered": lambda cause, fields: _plus_cause("A person was notified", cause),
    "notice_not_delivered": lambda cause, fields: _plus_cause("A person could not be notified", cause),
    "notices_not_possible": lambda cause, fields: as_sentence(cause),
    "orchestrator_started": lambda cause, fields: (
        f"The orchestrator {fields['version']} has started on port {fields['port']}."
    ),
    "program_changed": lambda cause, fields: as_sentence(cause),
    "prompt_shortened": _prompt_shortened,
    "recovery_finished": _recovery_finished,
    "recovery_requested": lambda cause, fields: _plus_cause("Recovery was asked for", cause),
    "request_finished": _request_finished,
    "request_resumed": _request_resumed,
    "requests_lost": lambda cause, fields: _plus_cause(
        f"{_requests(fields)} {'was' if int(fields['count']) == 1 else 'were'} lost", cause
    ),
    "requests_parked": _requests_parked,
    "server_shutdown_complete": lambda cause, fields: "The shutdown is complete.",
    "server_started": lambda cause, fields: f"The gateway starts as PID {fields['pid']}.",
    "server_stopping": lambda cause, fields: _plus_cause("It stops", cause),
    "spare_started": lambda cause, fields: f"A standby engine starts as PID {fields['pid']}.",
    "weights_damaged": lambda cause, fields: as_sentence(cause),
    "supervisor_stopped": lambda cause, fields: "All of its children have stopped.",
}
"""Functions that describe an event by its cause and fields. `_any_event` describes all other events."""
