"""Send a notice through Apprise, which reaches chat programs, telephones and mail by URL.

Apprise runs in a process of its own, because it takes 17 MB of memory and a delivery may hang. The URLs
contain secrets, so that process reads them from stdin; they appear neither in its arguments nor in any
message.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence

from host_agent.errors import HostAgentError
from host_agent.notifications.notices import Notice
from vestal.platform.commands import run_async

TIMEOUT_S = 45.0  # for all URLs together; Apprise allows 4 s to connect and 4 s to answer
COMMAND = (sys.executable, "-m", "host_agent.notifications.apprise_sender")
NOT_INSTALLED = (
    "The package apprise is not installed, so that the services in notifications.apprise get no notices: "
    "`pip install 'vestal[notifications]'` installs it."
)


class NotDelivered(HostAgentError):
    """A notice did not reach its channel."""

    code = "not_delivered"


def is_installed() -> bool:
    """Return whether Apprise is installed, without importing it."""
    return importlib.util.find_spec("apprise") is not None


async def send(urls: Sequence[str], notice: Notice, *, timeout_s: float = TIMEOUT_S) -> None:
    """Send the notice to each of the URLs. Raises NotDelivered, which names the failed URLs by number, if any
    fails.
    """
    kind = "success" if notice.over else "warning"
    message = {"urls": list(urls), "title": f"Vestal: {notice.title}", "body": notice.text, "type": kind}
    result = await run_async(*COMMAND, timeout_s=timeout_s, stdin=json.dumps(message).encode())
    if result.exit_code:
        lines = result.text.strip().splitlines()
        reason = lines[-1] if lines and lines[-1].startswith("Apprise") else f"exit code {result.exit_code}"
        raise NotDelivered(reason if reason.startswith("Apprise") else f"Apprise did not send it ({reason}).")
