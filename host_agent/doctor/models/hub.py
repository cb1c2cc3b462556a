"""Diagnose whether the Hugging Face hub can be reached, if a model of `mlx.preload` must be fetched from
there.
"""

import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.models import missing_model
from mlx_server.model_store.sources.source import HubSource
from vestal.config import Config

NAME = "hub"
ENDPOINT = "https://huggingface.co"
TIMEOUT_S = 5.0
SWITCHED_ON = ("1", "on", "yes", "true")
OTHERWISE = "take the model out of mlx.preload, or give it another source (`path:`, `pypi:`)."


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield one finding: a fault if a model of `mlx.preload` must be fetched from the Hugging Face hub, and
    the hub cannot be reached or HF_HUB_OFFLINE is set; else `ok`.

    If no model must be fetched from the hub, no request is sent.
    """
    wanted = [
        (name, source) for name, source in missing_model.to_fetch(config) if isinstance(source, HubSource)
    ]
    if not wanted:
        yield Finding(NAME, "ok", "No model of mlx.preload has to be fetched from the hub.")
        return
    names = ", ".join(name for name, _ in wanted)
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in SWITCHED_ON:
        sentence = f"{names} must be fetched from the hub, and HF_HUB_OFFLINE forbids that."
        yield Finding(NAME, "fault", sentence, f"Unset HF_HUB_OFFLINE; or {OTHERWISE}")
        return
    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    yield assess_answer(names, endpoint, why_unreachable(f"{endpoint}/api/models/{wanted[0][1].repo}"))


def assess_answer(names: str, endpoint: str, failure: str) -> Finding:
    """Return a finding that says whether the models `names` can be fetched from `endpoint`. `failure` says
    why the hub did not answer; empty if it did.
    """
    host = urlsplit(endpoint).netloc or endpoint
    if not failure:
        return Finding(NAME, "ok", f"{host} answers; {names} can be fetched from it.")
    sentence = f"{names} must be fetched from {host}, which does not answer ({failure})."
    remedy = f"Check the network and the proxy (HTTPS_PROXY), or set HF_ENDPOINT to a mirror; or {OTHERWISE}"
    return Finding(NAME, "fault", sentence, remedy)


def why_unreachable(url: str, timeout_s: float = TIMEOUT_S) -> str:
    """Send a request to `url` (through the configured HTTP proxy), and return why there is no response.

    Return an empty text if there is a response with any status, and also if this Python does not trust the
    server's certificate. The hub's library, which fetches models, may trust that certificate, because on
    macOS it asks the Keychain.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):
            return ""
    except urllib.error.HTTPError:
        return ""  # any status shows that the hub is reachable; a missing model is reported by the fetch
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return ""  # the host has answered, and the fetch reports a certificate that it does not trust
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


DIAGNOSIS = Diagnosis(NAME, diagnose)
