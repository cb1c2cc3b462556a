"""The gateway's access policy: local programs and containers are admitted; all others need the API key."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection

from vestal.web.guard import LOCAL_NAMES, Policy
from vestal.web.origins import OriginRules

HOST_NAMES = LOCAL_NAMES | {"0.0.0.0", "::", "host.containers.internal"}
HOST_SUFFIXES = (".localhost", ".local", ".internal")
"""The public DNS has no names below these suffixes, so that no attacker can make such a name resolve to this
machine (DNS rebinding)."""
ORIGIN_NAMES = LOCAL_NAMES | {"0.0.0.0", "tauri.localhost"}
WEB_VIEW_SCHEMES = frozenset({"app", "file", "tauri", "vscode-webview", "vscode-file"})
"""URL schemes of the pages of programs with a web view: Obsidian, Electron and Tauri apps, VS Code."""
PEER_PATHS = ("/v1/streams/", "/v1/responses/", "/health")
ORIGIN_HINT = "; add it to mlx.origins (or OLLAMA_ORIGINS) if you trust it"


def access_policy(
    api_key: str | None,
    host_names: Callable[[], frozenset[str]],
    keyless_addresses: Callable[[], frozenset[str]],
    origins: Collection[str] = (),
    peer_key: str | None = None,
) -> Callable[[], Policy]:
    """Return a function that returns the current access policy. The policy can change while the gateway runs,
    because the address of the Docker bridge may become known only later.

    `host_names` returns additional names of this machine that a `Host` header may have. A connection needs no
    API key if it came over loopback, or to one of this machine's `keyless_addresses`. `origins` are web pages
    that may use the gateway in addition to those that Ollama admits by default: pages of this machine, and of
    programs with a web view. `peer_key` is the key with which gateways on other machines, without the API
    key, may request the paths that begin with one of PEER_PATHS; None if there is no such key.

    Bodies may have any Content-Type, because Ollama's server accepts any: `curl -d` sends a JSON body as a
    form, and `fetch` sends it as text/plain. A browser page that would use this to skip the CORS preflight is
    recognized by its Origin. The size of a body is not checked here, but while the body is read.
    """
    rules = OriginRules(ORIGIN_NAMES, WEB_VIEW_SCHEMES, tuple(origins))

    def needs_key(local_address: str) -> bool:
        return local_address not in keyless_addresses() and not _is_loopback(local_address)

    def policy() -> Policy:
        return Policy(
            token=(api_key or "").encode(),
            token_hint="the token is the value of mlx.api_key.",
            host_names=HOST_NAMES | host_names(),
            host_suffixes=HOST_SUFFIXES,
            admits_hostless=True,
            origins=rules,
            origin_hint=ORIGIN_HINT,
            needs_token=needs_key,
            key_header=b"x-api-key",  # as Anthropic's clients send it
            json_only=False,
            other_token=(peer_key or "").encode(),
            other_token_prefixes=PEER_PATHS,
        )

    return policy


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
