"""`vestal search`: search the agents' knowledge by meaning and by words.

The exit code is 0 if something was found, and 1 if not.
"""

import argparse
import json
import textwrap
from typing import Any

from host_agent.cli.orchestrator.client import OrchestratorClient
from host_agent.cli.screen.styled import printable
from host_agent.cli.screen.waiting import waiting_for
from vestal.config import Config

SHOWN_LINES = 6
WIDTH = 100


def run(options: argparse.Namespace, config: Config) -> int:
    query = {"query": options.query, "k": options.count, "agent": options.agent, "path": options.path}
    body = {name: value for name, value in query.items() if value is not None}
    with waiting_for("searching"):
        answer = OrchestratorClient(config).post("/knowledge/search", body)
    if options.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(answer)))
    return 0 if answer["results"] else 1


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = [answer["note"]] if answer["note"] else []
    for number, result in enumerate(answer["results"], 1):
        heading = f" ({result['heading']})" if result["heading"] else ""
        lines += [f"{number}. {result['agent']}/{result['file']}{heading}", *_excerpt(result["text"])]
    return [printable(line) for line in lines] if answer["results"] else [*lines, "Nothing was found."]


def _excerpt(text: str) -> list[str]:
    wrapped = [part for line in printable(text).splitlines() for part in textwrap.wrap(line, WIDTH - 4)]
    more = ["…"] if len(wrapped) > SHOWN_LINES else []
    return [f"    {line}" for line in [*wrapped[:SHOWN_LINES], *more]]
