"""Run the real gateway with longer time limits than its own, which a busy machine may miss.

These variables set them, in seconds. They are for tests of something else than the limits.

    STREAMS_BEGIN_AFTER_S   how long a stream waits for its first token before it begins without one
    PEERS_ANSWER_WITHIN_S   how long a gateway on another machine may take for a reply
"""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from mlx_server.gateway.main import main


def be_patient() -> None:
    """Set the limits in this process. Nothing is imported for those that no variable sets."""
    if seconds := os.environ.get("STREAMS_BEGIN_AFTER_S"):
        from mlx_server.gateway.dialects import answers

        own: Any = answers.Answers
        own.__init__ = functools.partialmethod(own.__init__, begin_after_s=float(seconds))
    if seconds := os.environ.get("PEERS_ANSWER_WITHIN_S"):
        from mlx_server.gateway.peers import peer, routes

        peer.ASK_S = peer.CONNECT_S = routes.NEWS_S = float(seconds)
        peer.OFFER_S = 2 * float(seconds)  # the other gateway waits for its engine before it replies


if __name__ == "__main__":
    be_patient()
    sys.exit(main())
