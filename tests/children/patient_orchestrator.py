"""Run an orchestrator that gives backends and the host agent more time than it usually does.

A stand-in on a busy machine may answer only after seconds, and the orchestrator would then take it for a
backend that is down. Tests of the limits themselves run `python -m orchestrator`.
"""

from __future__ import annotations

import sys

import aiohttp

from orchestrator.__main__ import main
from orchestrator.knowledge.search import search
from orchestrator.llm import check, client
from orchestrator.recovery_webhook import webhook

WITHIN_S = 30.0


def be_patient() -> None:
    """Set the limits in this process."""
    check.CHECK_TIMEOUT = client.CHECK_TIMEOUT = webhook.TIMEOUT = aiohttp.ClientTimeout(total=WITHIN_S)
    client.LIVENESS_TIMEOUT = aiohttp.ClientTimeout(total=WITHIN_S)
    search.QUERY_WAIT_S = WITHIN_S


if __name__ == "__main__":
    be_patient()
    sys.exit(main(sys.argv[1:]))
