"""Measure the time to the first token of a prompt of 30, 1,700 or 6,000 tokens: of a new prompt, of the same
prompt again, and of the same prompt after a kill.

    python -m benchmarks.serving.warm_restart [ROUNDS [SUBJECT …]]

SUBJECT is `vestal` or the name of a server that it is compared with; by default, all take part. After the
kill, the prompt is sent when the server serves again and has answered one other request. For Vestal alone,
the answers of a conversation of ten turns are timed too, without kills and with a kill between all turns.
"""

from __future__ import annotations

import sys
import time
from functools import partial

from benchmarks.figures import Better
from benchmarks.scenario import Log, Scenario, Subjects, run_alone
from benchmarks.serving.asking import (
    Messages,
    answers,
    first_token_s,
    long_prompt,
    numbered_items,
    request,
    unused_number,
    warm_up,
)
from benchmarks.serving.contest import Contest
from benchmarks.serving.servers import Server, Vestal
from benchmarks.serving.starting import running

TOKENS = (1_700, 30, 6_000)
TIMES = ("cold", "again", "after_kill")
TURNS = 10
WRITTEN_S = 2.0
"""The pause before a kill in seconds, as long as a user reads. It lets the prompt cache be written, which
happens in the background.
"""
ROW = "serving/first_token_s/{}/{}"
WITHOUT_KILLS, WITH_KILLS = "serving/ten_turns_s/without_kills", "serving/ten_turns_s/nine_kills"
FASTER = ROW.format("{}", "cold_over_after_kill")
SECONDS: tuple[str, Better] = ("s", "lower")


def measure(log: Log, subjects: Subjects, rounds: int) -> None:
    rows = [ROW.format(tokens, name) for tokens in TOKENS for name in TIMES]
    with running(log, subjects, rows) as servers:
        contest = Contest(log, servers)
        contest.warm_up(warm_up)
        for number in range(1, rounds + 1):
            for tokens in TOKENS:
                units = {ROW.format(tokens, name): SECONDS for name in TIMES}
                units[FASTER.format(tokens)] = ("×", "higher")
                contest.turn(number, units, partial(_first_tokens, tokens, long_prompt(tokens)))
            units = {WITHOUT_KILLS: SECONDS, WITH_KILLS: SECONDS}
            contest.turn(number, units, _ten_turns, lambda server: isinstance(server, Vestal))


def _first_tokens(tokens: int, prompt: Messages, server: Server) -> dict[str, float]:
    found = []
    for name in TIMES:
        if name == "after_kill":
            _restart(server)
        found.append(first_token_s(server, prompt))
    values = {ROW.format(tokens, name): seconds for name, seconds in zip(TIMES, found, strict=True)}
    return values | {FASTER.format(tokens): found[0] / found[-1]}


def _restart(server: Server) -> None:
    """Wait WRITTEN_S seconds, then kill the engine of Vestal, or the whole process of another server. Return
    when the server has a new engine or process and has answered a request.
    """
    time.sleep(WRITTEN_S)
    server.kill()
    server.until_restarted()
    warm_up(server)


def _ten_turns(server: Server) -> dict[str, float]:
    return {WITHOUT_KILLS: conversation_s(server, False), WITH_KILLS: conversation_s(server, True)}


def conversation_s(server: Server, restarts: bool) -> float:
    """Hold a conversation of TURNS turns with the server, and return the seconds that all its answers take
    together. If `restarts` is True, the server is killed and restarted before each turn but the first; the
    seconds of the restarts are not included.
    """
    messages = [{"role": "system", "content": f"Talk {unused_number()}."}]
    took = 0.0
    for turn in range(TURNS):
        if turn and restarts:
            _restart(server)
        text = numbered_items(turn * 3, turn * 3 + 3)
        messages.append({"role": "user", "content": f"{text}\nAnd then?"})
        found, began, ended = answers(server, [request(server, messages, 32)])
        took += ended - began
        messages.append({"role": "assistant", "content": found[0].text})
    return took


SCENARIO = Scenario(
    "warm_restart",
    "first token of a prompt of 30, 1,700 and 6,000 tokens: cold, again, and after kill -9",
    quick_s=100,
    full_s=1800,
    run=measure,
    full_rounds=2,
)

if __name__ == "__main__":
    run_alone(SCENARIO, sys.argv[1:])
