"""Make sentences for people from the short texts of events and checks. Pure."""

import json


def as_sentence(text: str) -> str:
    """Return `text` with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def readable_cause(cause: str) -> str:
    """Return `cause`. If it ends with a log line in JSON, put the line's component, event and cause in its
    place, as words.

    A supervisor appends a child's last log line to the cause of its end: `killed by SIGKILL: {"ts": …}`.
    """
    head, _, line = cause.partition(": {")
    try:
        logged = json.loads("{" + line)
        words = f"{logged['component']} {logged['event'].replace('_', ' ')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return cause
    logged_cause = str(logged.get("cause") or "")
    return f"{head}; its last log line: {words}" + (f" ({logged_cause})" if logged_cause else "")
