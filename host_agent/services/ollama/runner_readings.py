"""Read what a runner is doing: from its slots, or from the last line about progress in Ollama's log. Pure.

Since 0.30, Ollama runs each model in a `llama-server`, whose GET /slots says how many tokens each slot has
read and written (tools/server/server-context.cpp of llama.cpp). Older runners and the MLX runner have no such
route. Ollama's log has a line for each part of a prompt that llama-server or the MLX runner has read.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from host_agent.services.http_probe import Reply

OK, LOADING = 200, 503
# llama-server until May 2026, llama-server since then (reading and writing), and the MLX runner:
# `prompt processing progress, n_tokens = 512, batch.n_tokens = 512, progress = 0.173677`
# `prompt processing, n_tokens =   2560, progress = 0.32, t =  10.00 s / 256.08 tokens per second`
# `n_gen =    240, tg =  24.10 t/s, tg_3s =  24.02 t/s`
# `level=INFO msg="Prompt processing progress" processed=2048 total=16384`
_FRACTION = re.compile(r"prompt processing(?: progress)?, n_tokens = *(\d+),.*?progress = (\d+\.\d+)")
_WRITTEN = re.compile(r"\bn_(?:gen|decoded) = *(\d+), tg = ")
_PARTS = re.compile(r'"Prompt processing progress".*?\bprocessed=(\d+) total=(\d+)')
_READ_REQUEST = re.compile(r"\bGET\b")


class RunnerActivity(StrEnum):
    """The activity of a runner, as far as it can be observed."""

    IDLE = "idle"
    WORKING = "working"
    LOADING = "loading"
    HIDDEN = "hidden"  # it shows nothing that would change with progress


@dataclass(frozen=True)
class Reading:
    """What a runner, a process that holds a model for Ollama, was seen to do at one time.

    `mark` is a value that changes whenever the runner makes progress. It is None if progress cannot be seen,
    because the runner is loading its model, has nothing that shows progress, or does not answer while it
    computes one step. `evidence` says in words what was seen, and where.
    """

    activity: RunnerActivity
    mark: object = None
    evidence: str = ""


@dataclass(frozen=True)
class RunnerReading:
    """What was observed of one runner, a process that holds a model for Ollama. `reading` says what the
    runner was doing, and `cores` how many CPU cores it was using. `connected` is True if its server had a
    connection to it for a client's request, which may be over.
    """

    pid: int
    cores: float
    reading: Reading
    connected: bool = False


STEP_RUNS = Reading(RunnerActivity.WORKING, None, "its /slots does not answer, as during a step")
SHOWS_NOTHING = Reading(RunnerActivity.HIDDEN, None, "it has no /slots, and its log shows no progress")


def read_slots(reply: Reply) -> Reading:
    """Return what a runner does, from its answer to GET /slots: it loads its model, is idle, or works. If it
    is idle or works, the field `mark`, which changes whenever the runner makes progress, has the token counts
    of its slots. If the answer is invalid, for example because the runner has no such route, return
    SHOWS_NOTHING.
    """
    if reply.status == LOADING:
        return Reading(RunnerActivity.LOADING, None, "it loads its model")
    if reply.status != OK or not isinstance(reply.body, list):
        return SHOWS_NOTHING
    slots = [slot for slot in reply.body if isinstance(slot, dict)]
    busy = [slot for slot in slots if slot.get("is_processing")]
    mark = tuple(_slot_mark(slot) for slot in slots)
    if not busy:
        return Reading(RunnerActivity.IDLE, mark, "its slots are idle")
    said = ", ".join(f"slot {s.get('id')} has read {_read(s)} and written {_written(s)} tokens" for s in busy)
    return Reading(RunnerActivity.WORKING, mark, f"its /slots: {said}")


def read_log(lines: Iterable[tuple[int, str]]) -> Reading:
    """Return what a runner does, from `lines`, the last lines of Ollama's log, each with its offset in the
    file. If no line reports progress, return SHOWS_NOTHING.

    Otherwise the newest line about progress decides. The activity is WORKING if this line says that a prompt
    has been read only in part, and if all lines after it are about GET requests, such as this agent's checks.
    Any other line after it may say that the prompt's request has ended or was cancelled; the activity is then
    HIDDEN. It is also HIDDEN if the prompt has been read completely, or an answer is being written.

    The field `mark`, which changes whenever the runner makes progress, is the newest line about progress with
    its offset.
    """
    last: tuple[int, str] | None = None
    is_newest = False
    for offset, line in lines:
        if _FRACTION.search(line) or _WRITTEN.search(line) or _PARTS.search(line):
            last, is_newest = (offset, line), True
        elif line.strip() and not _READ_REQUEST.search(line):
            is_newest = False
    if last is None:
        return SHOWS_NOTHING
    evidence = f"its log: {_in_words(last[1])}"
    return Reading(
        RunnerActivity.WORKING if is_newest and _is_unfinished(last[1]) else RunnerActivity.HIDDEN,
        last,
        evidence,
    )


def _slot_mark(slot: Mapping[str, Any]) -> tuple[object, ...]:
    return (slot.get("id"), slot.get("is_processing"), slot.get("id_task"), *_tokens(slot))


def _tokens(slot: Mapping[str, Any]) -> tuple[object, ...]:
    """Return every count of tokens in a slot, None for each that this release of llama-server does not
    report.
    """
    after = slot.get("next_token")
    decoded = after[0] if isinstance(after, list) and after else after
    read = [slot.get(name) for name in ("n_prompt_tokens", "n_past", "n_prompt_tokens_processed")]
    return (*read, slot.get("n_decoded"), decoded.get("n_decoded") if isinstance(decoded, dict) else None)


def _read(slot: Mapping[str, Any]) -> object:
    return next((number for number in _tokens(slot)[:3] if number is not None), "?")


def _written(slot: Mapping[str, Any]) -> object:
    return next((number for number in _tokens(slot)[3:] if number is not None), "?")


def _is_unfinished(line: str) -> bool:
    if found := _FRACTION.search(line):
        return float(found[2]) < 1
    if found := _PARTS.search(line):
        return int(found[1]) + 1 < int(
            found[2]
        )  # the last token of a prompt is read with the first of the answer
    return False


def _in_words(line: str) -> str:
    if found := _FRACTION.search(line):
        return f"{found[1]} tokens of a prompt are read, {float(found[2]):.0%} of it"
    if found := _PARTS.search(line):
        return f"{found[1]} of {found[2]} tokens of a prompt are read"
    found = _WRITTEN.search(line)
    return f"{found[1]} tokens are written" if found else line[:120]
