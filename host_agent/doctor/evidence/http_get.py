"""Send one GET request to a server that may be in any state, and describe the response or the failure."""

import http.client
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from host_agent.blocking_http import json_object, open_response

TIMEOUT_S = 5.0
MAX_BYTES = 4 * 1024 * 1024
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1", "0.0.0.0")


@dataclass(frozen=True)
class HttpAnswer:
    """The result of a request: `status` is the HTTP status, `fields` the JSON object in the body (empty if
    there is none).

    Without a response, `status` is 0 and `failure` says why in a few words; `refused` is True if nothing
    listens on the port.
    """

    status: int
    fields: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    refused: bool = False


def get(url: str, timeout_s: float = TIMEOUT_S) -> HttpAnswer:
    """Send a GET request and return its result. No exception is raised, whatever the server does."""
    try:
        with open_response("GET", url, timeout_s=timeout_s) as response:
            return HttpAnswer(response.status, _fields(response.read(MAX_BYTES)))
    except ConnectionRefusedError:
        return HttpAnswer(0, failure="nothing listens there", refused=True)
    except TimeoutError:
        return HttpAnswer(0, failure=f"no answer within {timeout_s:g} s")
    except (OSError, http.client.HTTPException) as error:
        return HttpAnswer(0, failure=f"the connection failed ({error or type(error).__name__})")


def gateway_health(port: int, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Return the JSON of the gateway's response to `GET /health`; empty if no gateway answers."""
    return get(f"http://127.0.0.1:{port}/health", timeout_s).fields


def is_local(url: str) -> bool:
    """Return whether `url` names this machine, by `localhost` or a loopback address."""
    return (urlsplit(url).hostname or "") in LOCAL_HOSTS


def _fields(raw: bytes) -> dict[str, Any]:
    try:
        return json_object(raw)
    except ValueError:
        return {}
