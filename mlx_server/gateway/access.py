"""What the gateway lets in: every program of this machine and its containers, and others with the API key."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from vestal.web.guard import LOCAL_NAMES, Policy


def access_policy(
    api_key: str | None,
    host_names: Callable[[], frozenset[str]],
    keyless_addresses: Callable[[], frozenset[str]],
) -> Callable[[], Policy]:
    """Return a function that returns the policy in force, since the Docker bridge's address may come later.

    `host_names` returns what this machine is called besides the usual names. Connections to its
    `keyless_addresses` need no API key, nor do those over loopback.

    Bodies may have any Content-Type, because Ollama's server takes any: `curl -d` sends a JSON body as a
    form, and `fetch` sends it as text/plain. A browser page that would use that to skip the CORS preflight is
    recognized by its Origin. The size of a body is checked as it is read.
    """

    def needs_key(local_address: str) -> bool:
        return local_address not in keyless_addresses() and not _is_loopback(local_address)

    def policy() -> Policy:
        return Policy(
            token=(api_key or "").encode(),
            token_hint="the token is the value of mlx.api_key.",
            host_names=LOCAL_NAMES | host_names(),
            origin_names=LOCAL_NAMES,
            needs_token=needs_key,
            key_header=b"x-api-key",  # as Anthropic's clients send it
            json_only=False,
        )

    return policy


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
