"""Read a message and its URLs from stdin, send it through Apprise, and print a sentence about what failed.

The exit code is 0 if every URL accepted the message, else 1.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from vestal.best_effort.output import write_line


def main() -> int:
    """Read from stdin a JSON object with a message (`title`, `body` and `type`) and the `urls` to send the
    message to, and send it. Return 0 if every URL accepted the message. Else print one sentence about the
    URLs that failed, and return 1.
    """
    failed = send(json.load(sys.stdin))
    if failed:
        write_line(sys.stdout, f"Apprise did not reach {' and '.join(failed)}.")
    return 1 if failed else 0


def send(message: dict[str, Any]) -> list[str]:
    """Send `message`, which has the keys `title`, `body`, `type` (Apprise's type of notification) and `urls`,
    to each of these URLs. Return a phrase about each URL that did not accept it; [] if all did. If Apprise is
    not installed, send nothing, and return one phrase that says so. No phrase quotes a URL, because URLs
    contain secrets.
    """
    try:
        import apprise
    except ImportError:
        return ["any service: it is not installed (`pip install 'vestal[notifications]'`)"]
    logging.disable(logging.CRITICAL)  # Apprise's warnings quote the URLs, which contain secrets
    asset = apprise.AppriseAsset(app_id="Vestal", app_desc="Vestal", async_mode=False, secure_logging=True)
    failed = []
    for number, url in enumerate(message["urls"], 1):
        service, name = apprise.Apprise(asset=asset), f"URL {number} ({url.partition('://')[0]})"
        if not service.add(url):
            failed.append(f"{name}, which names no service that it knows")
        elif not service.notify(title=message["title"], body=message["body"], notify_type=message["type"]):
            failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(main())
