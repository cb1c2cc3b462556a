"""Render the chat templates of one model's requests in a separate process, because Python cannot limit how
much time or memory a template takes. The process can be started ahead of need, and is restarted after it has
died.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from mlx_server.engine.generation.prompts.templates import renderer
from mlx_server.engine.generation.prompts.templates.child import (
    ResidentBytes,
    TemplateChild,
    resident_bytes,
)
from mlx_server.engine.generation.prompts.templates.limits import (
    TemplateLimits,
    TemplateProcessDied,
    TemplateRefusal,
    out_of_memory,
    too_long,
)
from mlx_server.engine.log import log_event

DEFAULT_LIMITS = TemplateLimits()


class TemplateProcess:
    """Renders templates in a separate process, one after another. A second caller waits for the first. The
    owner must call `close`.

    `limits` apply to each rendering: to its time, its memory and the length of its text. `resident_bytes`
    returns the resident memory of the process with a given PID, and is called to check the memory limit. If
    the engine dies, the process ends, too, because its standard input, a socket to the engine, then ends.
    """

    def __init__(
        self, limits: TemplateLimits = DEFAULT_LIMITS, resident_bytes: ResidentBytes = resident_bytes
    ) -> None:
        self._limits, self._resident_bytes = limits, resident_bytes
        self._child: TemplateChild | None = None
        self._closed = False
        self._lock = threading.Lock()  # held while a template is rendered

    @property
    def pid(self) -> int | None:
        """Return the PID of the process; None if it has not been started."""
        child = self._child
        return child.pid if child else None

    def start(self) -> None:
        """Start the process unless it runs, without waiting until it is ready.

        If it cannot be started, log that. `render` then tries again to start it.
        """
        try:
            with self._lock:
                self._running()
        except TemplateProcessDied as error:
            log_event("template_process_not_started", cause=str(error))

    def render(self, template: str, variables: dict[str, Any], time_s: float | None = None) -> str:
        """Return the text that `template` makes of `variables`, which must be JSON values. If the template
        writes the date, it is the date of `time_s` (seconds since 1970; None for the present).

        If the process dies for an unknown reason, such as a lack of memory, a new process renders the
        template once more. Raises TemplateError if the template refuses the variables, exceeds a limit, or
        the process dies again.
        """
        request = json.dumps([template, variables, time_s]).encode()
        with self._lock:
            try:
                return self._text(request)
            except TemplateProcessDied as death:
                log_event("template_process_died", cause=str(death))
            return self._text(request)

    def close(self) -> None:
        """End the process. A call of `render` that is in progress raises TemplateProcessDied."""
        self._closed = True
        if (child := self._child) is not None:
            child.kill()  # so that a call of `render` in progress ends and releases the lock
        with self._lock:
            self._discard()

    def _text(self, request: bytes) -> str:
        try:
            reply = self._running().ask(request)
        except BaseException:
            self._discard()
            raise
        kind, text = reply[:1], reply[1:]
        if kind == renderer.TEXT:
            return text.decode("utf-8", "surrogatepass")
        if kind == renderer.REFUSAL:
            raise TemplateRefusal(text.decode("utf-8", "replace"))
        self._discard()  # the memory of a process that was stopped is fragmented, or worse
        raise too_long(self._limits) if kind == renderer.TOO_LONG else out_of_memory(self._limits)

    def _running(self) -> TemplateChild:
        """Return the running process, after starting it if necessary. Raises TemplateProcessDied if it cannot
        be started, or if this object has been closed.
        """
        self._check_open()
        if self._child is not None and not self._child.runs:
            self._discard()
        if self._child is None:
            self._child = TemplateChild(self._limits, self._resident_bytes)
            self._check_open()  # `close` kills only a process that it finds
        return self._child

    def _check_open(self) -> None:
        if self._closed:
            raise TemplateProcessDied("its model was unloaded")

    def _discard(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()


_started_ahead: list[TemplateProcess] = []


def start_process_ahead() -> None:
    """Start the process that will render the chat template of the first model to be loaded. A standby engine
    does this while it waits until it may serve. `take_process` later returns the process.
    """
    _started_ahead.append(TemplateProcess())
    _started_ahead[-1].start()


def take_process() -> TemplateProcess:
    """Return a started process: the one that was started ahead, unless it has been taken, or else a
    new one.
    """
    process = _started_ahead.pop() if _started_ahead else TemplateProcess()
    process.start()
    return process
