"""Open the answer log, which an earlier gateway may still hold."""

from __future__ import annotations

import math
from collections.abc import Callable

from mlx_server.gateway.answer_log import AnswerLog, LockOnlyLog, LogInUse, NoLog
from vestal.config import Config
from vestal.supervision import Clock

POLL_S = 0.02
MAX_WAIT_S = 20.0
"""How long a gateway waits for the log before it serves without one. An earlier gateway that was killed has
released the log; one that shuts down needs a few seconds."""

MAX_ANSWERS, MAX_BYTES = 10_000, 256 * 1024 * 1024


async def open_answer_log(
    config: Config, clock: Clock, emit: Callable[..., None], *, waits: bool = False
) -> AnswerLog:
    """Wait until no other gateway holds the log of this installation, and return the log.

    The returned log stores nothing if `mlx.keep_answers_s` is 0, or if another gateway still holds the log
    after MAX_WAIT_S. `waits` says that the other gateway is about to hand over; then there is no time limit.

    `emit(event, cause, **fields)` writes an event of this gateway. It is called here if another gateway still
    holds the log after MAX_WAIT_S, and later by the returned log, for example when the disk is full.
    """
    mlx = config.mlx
    end_s = math.inf if waits else clock.now() + MAX_WAIT_S
    while True:
        try:
            if mlx.keep_answers_s == 0:
                return LockOnlyLog(config.home.answers)
            return await AnswerLog.open(
                config.home.answers,
                keep_s=mlx.keep_answers_s,
                max_bytes=MAX_BYTES,
                max_answers=MAX_ANSWERS,
                clock=clock,
                emit=emit,
            )
        except LogInUse as in_use:
            if clock.now() > end_s:
                emit("answer_log_in_use", f"{in_use}; answers do not outlive this gateway")
                return NoLog()
        await clock.sleep(POLL_S)
