"""The source of the `sample` events of GET /live. Each event has a new sample of the agent's history: figures
about memory, requests and tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from host_agent.history.history import History
from host_agent.listener.live.hub import Publish
from host_agent.listener.live.mailbox import frame

KEY = "sample"


class SampleSource:
    """Publishes each new sample of the history; a new follower is sent the newest one at once."""

    def __init__(self, history: History) -> None:
        self._history = history

    def newest(self) -> Mapping[str, bytes]:
        newest = self._history.newest
        return {} if newest is None else {KEY: frame("sample", newest)}

    async def run(self, publish: Publish) -> None:
        def publish_sample(sample: Mapping[str, Any]) -> None:
            publish(KEY, frame("sample", sample))

        with self._history.listen(publish_sample):
            await asyncio.Event().wait()
