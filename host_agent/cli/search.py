"""`vestal search`: the agents' knowledge, by meaning and by words. Exit code 0 something found, 1 nothing."""

import argparse
import http.client
import json
import textwrap
from typing import Any

from host_agent.config import Config, read_token
from host_agent.errors import OrchestratorUnreachable, RequestRefused

TIMEOUT_S = 60.0  # the query's embedding has 10 s, a first search loads the vectors
SHOWN_LINES = 6
WIDTH = 100


def run(options: argparse.Namespace, config: Config) -> int:
    asked = {"query": options.query, "k": options.count, "agent": options.agent, "path": options.path}
    answer = _ask(config, {name: value for name, value in asked.items() if value is not None})
    if options.json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(answer)))
    return 0 if answer["results"] else 1


def _ask(config: Config, body: dict[str, Any]) -> dict[str, Any]:
    port = config.orchestrator.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {read_token(config.home)}"}
    try:
        connection.request("POST", "/knowledge/search", json.dumps(body), headers)
        reply = connection.getresponse()
        status, answer = reply.status, json.loads(reply.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = f"No orchestrator answers on port {port} ({error or type(error).__name__})"
        raise OrchestratorUnreachable(f"{reason}: `vestal up` starts it.") from error
    if status != http.client.OK:
        message = (answer.get("error") or {}).get("message") or f"it answered {status}"
        raise RequestRefused(f"The orchestrator refused: {message}")
    return dict(answer)


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = [answer["note"]] if answer["note"] else []
    for number, hit in enumerate(answer["results"], 1):
        heading = f" ({hit['heading']})" if hit["heading"] else ""
        lines += [f"{number}. {hit['agent']}/{hit['file']}{heading}", *_shown(hit["text"])]
    return lines if answer["results"] else [*lines, "Nothing was found."]


def _shown(text: str) -> list[str]:
    wrapped = [part for line in text.splitlines() for part in textwrap.wrap(line, WIDTH - 4)]
    more = ["…"] if len(wrapped) > SHOWN_LINES else []
    return [f"    {line}" for line in [*wrapped[:SHOWN_LINES], *more]]
