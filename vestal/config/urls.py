"""Check the http addresses in the settings, so that no invalid one reaches a client of HTTP."""

from urllib.parse import urlsplit

PROBLEM = (
    "not the address of a server: give http://HOST:PORT, with a port from 1 to 65535 and an IPv6 address in "
    "brackets, such as http://127.0.0.1:11434 or http://[::1]:11434"
)


def check_http_url(url: str) -> str:
    """Return an http or https URL unchanged. Raises ValueError, with the remedy, if it is not such a URL, or
    if its host or port is invalid.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as a look-up of the name does; a UnicodeError is a ValueError
    except ValueError:
        raise ValueError(PROBLEM) from None
    has_blanks = " " in url or not url.isprintable()  # urlsplit removes some of them
    if has_blanks or parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(PROBLEM)
    return url


def without_api_path(url: str) -> str:
    """Return the URL of a server without `/`, `/v1` and `/api` at its end. People copy these from the
    settings of other programs; the callers of the server's APIs add them themselves.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/api").rstrip("/")
    return parts._replace(path=path).geturl()
