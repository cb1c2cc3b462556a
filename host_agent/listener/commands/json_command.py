"""Run a command that prints a JSON object, and return that object. Calls that arrive while the command runs
share its result.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from vestal.platform import commands
from vestal.web.http_error import HttpError


class JsonCommand:
    """Runs one command that prints a JSON object. Calls of `result` that arrive while the command runs wait
    for it and share its result.

    A command that takes longer than `timeout_s` seconds is killed. `result` then raises HttpError, as it does
    if the command prints no JSON object.
    """

    def __init__(self, *command: str, timeout_s: float) -> None:
        self._command, self._timeout_s = command, timeout_s
        self._running: asyncio.Task[dict[str, Any]] | None = None

    async def result(self) -> dict[str, Any]:
        """Run the command, or wait for the running one, and return the JSON object that it prints.

        `took_s`, the command's run time in seconds, is added to the object. Raises HttpError with status 502
        if the command prints no JSON object, cannot be started, or was killed after `timeout_s`. The
        exception's message is the last line of the output, or the reason.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return dict(await asyncio.shield(self._running))

    async def _run(self) -> dict[str, Any]:
        began = time.monotonic()
        done = await commands.run_async(*self._command, timeout_s=self._timeout_s)
        printed = done.text[done.text.find("{") : done.text.rfind("}") + 1]
        try:
            answer: dict[str, Any] = json.loads(printed)
        except ValueError:
            lines = done.text.strip().splitlines() or [f"The command ended with exit code {done.exit_code}."]
            message = lines[-1].removeprefix("vestal: ")
            raise HttpError("command_failed", message, status=502) from None
        return answer | {"took_s": round(time.monotonic() - began, 2)}
