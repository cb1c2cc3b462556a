"""Read OLLAMA_HOST, the variable by which Ollama's server and clients find each other, as Ollama does."""

import ipaddress
import re
from collections.abc import Mapping

from vestal.config.errors import ConfigError
from vestal.config.urls import check_http_url, without_api_path

VARIABLE = "OLLAMA_HOST"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", "11434"
SCHEME_PORTS = {"http": "80", "https": "443"}  # of a value with a scheme; else DEFAULT_PORT
CLOUD = "ollama.com"
MAX_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def base_url(env: Mapping[str, str]) -> str | None:
    """Return the URL at which a client reaches the server that OLLAMA_HOST names; None if it is unset.

    The forms are those of Ollama (envconfig.Host): `host`, `host:port`, `:port`, `http://host`, IPv6 with and
    without brackets, and a path. A server at 0.0.0.0 or :: is reached at this machine's loopback address. As
    in Ollama, an invalid port means the default port. Raises ConfigError if the scheme or the host is
    invalid.
    """
    text = env.get(VARIABLE, "").strip().strip("\"'").strip()
    if not text:
        return None
    scheme, host, port, path = _parts(text)
    try:
        if not (_NAME.fullmatch(host) or _is_ip_address(host)):
            raise ValueError
        host = _connectable(host)
        url = check_http_url(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}")
    except ValueError:
        raise ConfigError(
            f"{VARIABLE} (environment) is {text!r}, which is not an Ollama server's address: give HOST:PORT, "
            "unset it, or set ollama.base_url."
        ) from None
    return without_api_path(url)


def _parts(text: str) -> tuple[str, str, str, str]:
    """Return scheme, host, port and path of an OLLAMA_HOST value. Missing parts get their defaults."""
    scheme, given, rest = text.partition("://")
    default_port = SCHEME_PORTS.get(scheme, DEFAULT_PORT)
    if not given:
        scheme, rest, default_port = ("https", text, "443") if text == CLOUD else ("http", text, DEFAULT_PORT)
    address, slash, path = rest.partition("/")
    host, port = _split(address)
    digits = (port or "").lstrip("0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= MAX_PORT):
        digits = default_port
    return scheme, host or DEFAULT_HOST, digits, (slash + path).rstrip("/")


def _split(address: str) -> tuple[str, str | None]:
    """Return host and port of `host:port`; the port is None if the value has only a host."""
    if address.startswith("["):
        host, _, port = address[1:].partition("]")
        return host, port[1:] if port.startswith(":") else None
    if address.count(":") == 1:
        host, _, port = address.partition(":")
        return host, port
    return address, None


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _connectable(host: str) -> str:
    """Return the loopback address in place of a wildcard address such as 0.0.0.0 or ::."""
    if not _is_ip_address(host):
        return host
    address = ipaddress.ip_address(host)
    if not address.is_unspecified:
        return str(address)
    return "127.0.0.1" if address.version == 4 else "::1"
