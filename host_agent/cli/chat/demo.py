"""`vestal demo`: have a model write a story, kill the engine in mid-sentence, and show that the story
continues.

The exit code is 0 if the story continued and nothing was lost, else 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress

from host_agent.agent_client import AgentClient
from host_agent.cli.chat import demo_report
from host_agent.cli.chat.chat import choose_model
from host_agent.cli.chat.story import Story, engine_pid
from host_agent.cli.gateway import GatewayClient
from host_agent.cli.screen.styled import print_lines, wrapped
from host_agent.errors import HostAgentError, NoFittingModel, NotPossible
from vestal.config import Config, ConfigError

DEMO_MODEL = "smollm2:135m"
STORY = "Tell me a story about a fox that crosses a river at night."
STORY_TOKENS = (100, 400, 1600)
"""The story's lengths, tried in order, because a fast engine may end a short story before the kill."""
LOST = 1


def run(options: argparse.Namespace, config: Config) -> int:
    gateway = GatewayClient(config)
    engine_pid(gateway)
    model = _model(gateway)
    if not options.yes:
        _check_alone(gateway)
    return show(gateway, model, lambda pid: kill_engine(config, pid))


def show(gateway: GatewayClient, model: str, kill: Callable[[int], None], prompt: str = STORY) -> int:
    """Stream a story and kill its engine, stream the same story without a kill, and print how they compare.

    `kill` is called with the engine's PID. Return 0 if the story continued after the kill and no text was
    lost, else the exit code LOST. If a story ends before its engine is killed, a longer one is tried. Raises
    HostAgentError if a story fails, or if even the longest one ends before the kill.
    """
    width = shutil.get_terminal_size().columns
    title = f"{model} tells a story. Its engine will be killed in mid-sentence."
    print_lines([*wrapped([(title, "bold")], width), []])
    for tokens in STORY_TOKENS:
        story = Story(gateway, model, prompt, tokens)
        story.tell(kill)
        print("\n", flush=True)
        if story.shown.failure:
            raise HostAgentError(f"The story did not go on: {story.shown.failure}")
        if story.was_interrupted:
            break
        print_lines([[("That was over before the kill. A longer one:", "dim")], []])
    else:
        raise HostAgentError("Each story was over before its engine could be killed.")
    undisturbed = Story(gateway, model, prompt, tokens)
    if failure := undisturbed.tell(None).failure:
        raise HostAgentError(f"The story went on, but cannot be generated again to compare it: {failure}")
    result = story.result(undisturbed.shown)
    is_proven = demo_report.survived(result)
    style = "green" if is_proven else "yellow"
    print_lines([(line, style)] for line in demo_report.report(result, width))
    return 0 if is_proven else LOST


def kill_engine(config: Config, pid: int) -> None:
    """Kill the engine through the agent, which records that a person did so. If that fails, send SIGKILL.

    Raises NotPossible if the engine's process belongs to another user.
    """
    with suppress(HostAgentError, ConfigError):
        AgentClient(config).post("/services/mlx_engine/kill")
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the engine died just before the kill, which demonstrates the same
    except PermissionError:
        raise NotPossible(f"The engine (PID {pid}) belongs to another user, who has to run this.") from None


def _model(gateway: GatewayClient) -> str:
    """Return DEMO_MODEL, which is small, if it is installed; else the largest loaded model or, if none is
    loaded, the largest installed one. Raises NoFittingModel if no language model is installed.
    """
    try:
        return choose_model(gateway, DEMO_MODEL)
    except NoFittingModel:
        return choose_model(gateway, None)


def _check_alone(gateway: GatewayClient) -> None:
    """Raise NotPossible if the engine writes other answers. The demonstration kills the engine, which would
    interrupt them.

    Two kinds of requests have no answer that is written, so their `tokens` are None, and do not count: texts
    to embed or to rank, because no one watches them (just after the first start, the orchestrator has its
    knowledge embedded for half a minute), and requests that another machine answers.
    """
    requests = gateway.get("/requests").get("requests") or []
    others = [request for request in requests if request.get("tokens") is not None]
    if others:
        clients = sorted({str(request.get("client") or "an unknown program") for request in others})
        count = f"{len(others)} request{'s' * (len(others) > 1)} of {', '.join(clients)}"
        raise NotPossible(
            f"The engine works on {count}, which would have to wait for its next start: come back later, or"
            " run `vestal demo --yes`."
        )
