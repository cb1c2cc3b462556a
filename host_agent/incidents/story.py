"""Describe an incident in English: a title, one or two sentences, its causes, and what was done. Pure.

`clock` formats seconds since 1970 as the time of day.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from host_agent.incidents.incident import Incident, Part, Requests
from host_agent.incidents.related import name_of, subject
from host_agent.services import MLX_ENGINE, MLX_SERVER

Clock = Callable[[float], str]

TIMES = ("", "once", "twice", "three times", "four times", "five times", "six times", "seven times")
MAX_DETAILS = 2
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def as_json(incident: Incident, clock: Clock, now: float) -> dict[str, Any]:
    """Return the incident as the JSON object that GET /incidents contains for it.

    `clock` formats the times in the object's `sentence`. `now` is the current time in seconds since 1970, up
    to which the duration of an open incident is computed.
    """
    requests = incident.requests
    return {
        "id": incident.id,
        "began_at": incident.began_at,
        "ended_at": incident.ended_at,
        "open": incident.open,
        "duration_s": round(incident.duration_s(now), 3),
        "severity": "notice" if incident.is_notice else "fault",
        "services": [part.service for part in _parts(incident)],
        "title": title(incident),
        "sentence": sentence(incident, clock),
        "causes": causes(incident),
        "done": done(incident),
        "restarts": sum(part.restarts for part in incident.parts.values()),
        "requests": {"waited": requests.waited, "continued": requests.continued, "lost": requests.lost},
        "first_seq": incident.first_seq,
        "last_seq": incident.last_seq,
    }


def title(incident: Incident) -> str:
    """Return a title that says what failed, in a few words."""
    parts = _parts(incident)
    if not parts:
        return "Something failed"
    if len(parts) > 1:
        names = _list([name_of(part.service) for part in parts])
        return f"{names[:1].upper()}{names[1:]} failed"
    (part,) = parts
    if part.gave_up:
        return f"{subject(part.service)} cannot start"
    forms = _failure_forms(part)
    did = f"{forms[0][0]}{_how_often(forms[0][1])}" if len(forms) == 1 else f"failed {times(part.count)}"
    return f"{subject(part.service)} {did}"


def sentence(incident: Incident, clock: Clock) -> str:
    """Return one or two sentences: when and what failed, why, and whether requests were lost."""
    clauses = [_what_happened(part) for part in _parts(incident)]
    clauses += [clause for part in _parts(incident) for clause in _what_followed(incident, part, clock)]
    if about_requests := _requests(incident):
        clauses.append(about_requests)
    clauses += [clause for clause in dict.fromkeys(part.end for part in incident.parts.values()) if clause]
    return f"{_when(incident, clock)} {'; '.join(clauses)}."


def causes(incident: Incident) -> list[str]:
    """Return the causes of the incident as a list of different sentences. First come the failures: one
    sentence for each service and each verb, such as "was killed", that says how the service failed. Then come
    the sentences in `incident.causes`.
    """
    sentences = [
        f"{subject(part.service)} {_failure_text(*form)}."
        for part in _parts(incident)
        for form in _failure_forms(part)
    ]
    return list(dict.fromkeys(sentences + incident.causes))


def done(incident: Incident) -> list[str]:
    """Return a sentence for each measure that was taken, such as restarts."""
    sentences = []
    for part in _parts(incident):
        if part.restarts:
            sentences.append(f"{subject(part.service)} was started again{_how_often(part.restarts)}.")
        if part.breaker_opens:
            sentences.append(f"{_breaker(part)[:1].upper()}{_breaker(part)[1:]}.")
    return list(dict.fromkeys(sentences + incident.done))


def duration(seconds: float) -> str:
    """Format a duration in a suitable unit, such as `60 s`, `5 min` or `2 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h".replace(".0 h", " h")


def times(count: int) -> str:
    """Return a count in words, such as `five times`, or with digits if it is large, such as `12 times`."""
    return TIMES[count] if count < len(TIMES) else f"{count} times"


def _parts(incident: Incident) -> list[Part]:
    """Return the parts of the incident that the functions of this module describe. A part says what happened
    to one service.

    If the machine restarted, leave out the services whose processes ended while no agent ran, because the
    restart explains that. If no other services are in the incident, leave out none.
    """
    parts = list(incident.parts.values())
    mentioned = [part for part in parts if not (incident.rebooted and part.unseen)]
    return mentioned or parts


def _when(incident: Incident, clock: Clock) -> str:
    began = clock(incident.began_at)
    if incident.ended_at is None:
        return f"Since {began}"
    ended = clock(incident.ended_at)
    return began if began == ended else f"{began}–{ended}"


def _what_happened(part: Part) -> str:
    return f"{name_of(part.service)} {_list([_failure_text(*form) for form in _failure_forms(part)])}"


def _failure_forms(part: Part) -> list[tuple[str, int, list[str]]]:
    """Return how a service failed, with one tuple for each verb, such as "was killed": the verb, the number
    of failures with this verb, and the first MAX_DETAILS of their details, such as "SIGKILL, sender unknown".
    """
    forms: dict[str, tuple[int, list[str]]] = {}
    for failure, count in part.failures.items():
        before, details = forms.get(failure.verb, (0, []))
        more = [failure.detail] if failure.detail else []
        forms[failure.verb] = before + count, [*details, *more]
    return [(verb, count, details[:MAX_DETAILS]) for verb, (count, details) in forms.items()]


def _failure_text(verb: str, count: int, details: list[str]) -> str:
    in_brackets = f" ({'; '.join(details)})" if details else ""
    return f"{verb}{_how_often(count)}{in_brackets}"


def _how_often(count: int) -> str:
    return f" {times(count)}" if count > 1 else ""


def _what_followed(incident: Incident, part: Part, clock: Clock) -> list[str]:
    followed = []
    if part.breaker_opens:
        is_open = incident.open and part.next_trial_at is not None and part.service in incident.pending
        trial = f", and the next trial is at {clock(part.next_trial_at or 0)}" if is_open else ""
        followed.append(f"{_breaker(part)}{trial}")
    if part.gave_up:
        followed.append(f"it cannot start ({part.gave_up})" if len(incident.parts) == 1 else "")
    return [clause for clause in followed if clause]


def _breaker(part: Part) -> str:
    whose = (
        "the breaker"
        if part.service in (MLX_ENGINE, MLX_SERVER)
        else f"the breaker of {name_of(part.service)}"
    )
    if part.next_trial_at is not None:  # it is not known yet for how long
        return f"{whose} opened{_how_often(part.breaker_opens)}"
    if part.breaker_opens == 1:
        return f"{whose} opened for {duration(part.breaker_s)}"
    return f"{whose} opened {times(part.breaker_opens)} (for {duration(part.breaker_s)} in all)"


def _requests(incident: Incident) -> str:
    requests: Requests = incident.requests
    if requests.waited:
        return _of_requests(requests, " so far" if incident.open else "")
    part = incident.parts.get(MLX_ENGINE)
    # While the engine hangs, requests may wait in it that the journal has no event about.
    is_known = part is not None and not part.is_notice and not incident.open
    return "no request was running" if is_known else ""


def _of_requests(requests: Requests, so_far: str) -> str:
    waited, lost = requests.waited, requests.lost
    one = waited == 1
    if not lost:
        count = "one request waited, and was not" if one else f"{waited} requests waited, none was"
        return f"{count} lost{so_far}"
    if one:
        return "one request was lost"
    were = "was" if lost == 1 else "were"
    number = NUMBERS[lost] if lost < len(NUMBERS) else str(lost)
    went_on = f" {requests.continued} went on," if requests.continued else ""
    return f"{waited} requests waited,{went_on} {number} {were} lost{so_far}"


def _list(items: list[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]] if items[1:] else items)
