"""What the engine that runs now says of the prompt cache: its share of memory, and what it was good for."""

import http.client
import json
from typing import Any

TIMEOUT_S = 2.0
MIB = 1024**2


def ask(port: int) -> dict[str, int] | None:
    """The `prompt_cache` of the gateway's /health; None where nobody answers with one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        told: Any = json.loads(connection.getresponse().read())
        use = told["prompt_cache"]
        return {str(name): int(value) for name, value in use.items()}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None
    finally:
        connection.close()


def sentence(use: dict[str, int]) -> str:
    """For people."""
    ram, written = use.get("ram_bytes", 0) / MIB, use.get("written_bytes", 0) / MIB
    found = f"{use.get('hits_ram', 0)} blocks found in memory, {use.get('hits_disk', 0)} on disk"
    return (
        f"the engine that runs: {ram:.1f} MiB in memory; {found}, {use.get('misses', 0)} computed; "
        f"{written:.1f} MiB written"
    )
