"""Define the effect of each journal event on incidents: it opens, extends or ends an incident, or has no
effect. Pure.

Every event that Vestal's code can write is listed here; a test fails if one is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Effect(StrEnum):
    """The effect of an event on incidents.

    OPENS    the event is a fault: its service is not healthy from now on
    NOTICE   the event is a fault that is over at once, such as a damaged journal that was replaced
    ADDS     the event explains a fault that is open, that has just ended, or that is about to begin
    ENDS     the service of the event is healthy again, or a person stopped it
    NEUTRAL  the event says nothing about a fault
    """

    OPENS = "opens"
    NOTICE = "notice"
    ADDS = "adds"
    ENDS = "ends"
    NEUTRAL = "neutral"


_SUPERVISION = {
    "breaker_opened": Effect.OPENS,
    "child_gave_up": Effect.OPENS,
    "child_restarting": Effect.OPENS,  # only after a failure: a restart on request has no field `attempt`
    "child_start_timed_out": Effect.OPENS,
    "health_failed": Effect.OPENS,
    "breaker_closed": Effect.ADDS,
    "breaker_half_opened": Effect.ADDS,
    "child_adopted": Effect.ADDS,
    "child_exited": Effect.ADDS,  # the next event shows whether the exit was planned
    "child_killed": Effect.ADDS,
    "child_launch_failed": Effect.ADDS,
    "child_started": Effect.ADDS,
    "machine_woke": Effect.ADDS,
    "child_ready": Effect.ENDS,
    "child_stopped": Effect.ENDS,
    "health_overdue": Effect.NEUTRAL,  # the process works; only its answer to a check is late
    "leftovers_killed": Effect.NEUTRAL,
    "pid_file_not_written": Effect.NEUTRAL,
    "pid_file_written_again": Effect.NEUTRAL,
    "state_not_saved": Effect.NEUTRAL,
    "supervisor_detached": Effect.NEUTRAL,
    "supervisor_gave_up": Effect.NEUTRAL,  # repeats the child's breaker_opened or child_gave_up
    "supervisor_recovered": Effect.NEUTRAL,
    "supervisor_stopped": Effect.NEUTRAL,
}
_HANDOVER = {
    "child_handed_over": Effect.NEUTRAL,
    "child_replaced": Effect.NEUTRAL,
    "handover_began": Effect.NEUTRAL,
    "handover_refused": Effect.NEUTRAL,  # the old process continues to serve
    "predecessor_ended": Effect.NEUTRAL,
    "predecessor_found": Effect.NEUTRAL,
    "predecessor_killed": Effect.NEUTRAL,
}
_UPGRADE = {
    "agent_outdated": Effect.NEUTRAL,
    "agent_replaced": Effect.NEUTRAL,
    "gateway_outdated": Effect.NEUTRAL,
    "gateway_replaced": Effect.NEUTRAL,
    "service_not_wanted": Effect.ENDS,
    "service_outdated": Effect.NEUTRAL,
    "upgrade_refused": Effect.NEUTRAL,
}
_AGENT = {
    "agent_started": Effect.OPENS,  # only if the previous agent had not been stopped
    "disk_not_writable": Effect.OPENS,
    "begin_failed": Effect.OPENS,
    "journal_replaced": Effect.NOTICE,
    "loop_failed": Effect.NOTICE,
    "agent_replacing": Effect.ENDS,
    "agent_stopped": Effect.ENDS,
    "agent_stopping": Effect.ENDS,
    "disk_writable_again": Effect.ENDS,
    "address_bound": Effect.NEUTRAL,
    "address_not_bound": Effect.NEUTRAL,
    "connections_dropped": Effect.NEUTRAL,
    "connections_not_accepted": Effect.NEUTRAL,
    "file_written_again": Effect.NEUTRAL,
    "request_denied": Effect.NEUTRAL,
    "stop_incomplete": Effect.NEUTRAL,
    "token_restored": Effect.NEUTRAL,
}
_BY_HAND = {
    "kill_requested": Effect.ADDS,
    "restart_requested": Effect.ADDS,
    "start_requested": Effect.ADDS,
    "stop_requested": Effect.ENDS,
    "kill_failed": Effect.NEUTRAL,
    "restart_failed": Effect.NOTICE,
    "start_failed": Effect.NOTICE,
    "stop_failed": Effect.NOTICE,
}
_RECOVERY = {
    "only_a_reboot_helps": Effect.OPENS,
    "remedy_applied": Effect.OPENS,
    "recovery_finished": Effect.ENDS,  # for each healthy service; opens a fault for each other service
    "recovery_requested": Effect.NEUTRAL,
    "reset_requested": Effect.NEUTRAL,
}
_CONTAINERS = {
    "container_died": Effect.OPENS,  # unless the container was stopped on purpose
    "container_out_of_memory": Effect.NOTICE,
    "container_unhealthy": Effect.OPENS,
    "container_healthy": Effect.ENDS,
}
_OLLAMA = {
    "silence_ended": Effect.ENDS,
    "silence_judged": Effect.OPENS,  # only if Ollama is judged to hang
}
_MLX = {
    "answers_taken_up": Effect.ADDS,
    "engine_killed_for_memory": Effect.ADDS,
    "request_passed_on": Effect.ADDS,
    "request_resumed": Effect.ADDS,
    "requests_lost": Effect.ADDS,
    "requests_parked": Effect.ADDS,
    "weights_damaged": Effect.NOTICE,
    "gateway_first_delivery": Effect.NEUTRAL,
    "program_changed": Effect.NEUTRAL,
}
_NOTIFICATIONS = {
    "notice_delivered": Effect.ADDS,
    "notice_not_delivered": Effect.ADDS,
    "notices_not_possible": Effect.NEUTRAL,
}

EFFECTS: Mapping[str, Effect] = {
    **_SUPERVISION,
    **_HANDOVER,
    **_UPGRADE,
    **_AGENT,
    **_BY_HAND,
    **_RECOVERY,
    **_CONTAINERS,
    **_OLLAMA,
    **_MLX,
    **_NOTIFICATIONS,
}
"""The effect of each event by its name."""

INCIDENT_EVENTS = frozenset(name for name, effect in EFFECTS.items() if effect is not Effect.NEUTRAL)
"""The events that can change an incident."""
