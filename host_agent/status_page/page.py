"""Serve the status page's files from memory, with a Content-Security-Policy that allows only this server's
files.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

ASSETS = Path(__file__).with_name("assets")
INDEX = "index.html"
CONTENT_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".md": "text/plain",
    ".txt": "text/plain",
}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


@dataclass(frozen=True)
class Asset:
    """One file of the status page, compressed with gzip, and the headers of the response with this file."""

    compressed: bytes
    headers: dict[str, str]
    etag: str


class Page:
    """Holds the files of the status page, by their path relative to `folder`. All of them are read when the
    agent starts.

    An agent serves the files that it started with, because an upgrade that replaces the files on disk must
    not mix two versions of the page in one browser. Only the compressed form is kept, about 60 kB.
    """

    def __init__(self, folder: Path = ASSETS) -> None:
        files = (path for path in sorted(folder.rglob("*")) if path.suffix in CONTENT_TYPES)
        self._assets = {path.relative_to(folder).as_posix(): _read(path) for path in files}
        if INDEX in self._assets:
            # An open page compares this ETag to notice that one of its files has changed.
            etags = "".join(asset.etag for asset in self._assets.values())
            self._assets[INDEX] = _with_etag(self._assets[INDEX], _etag(etags.encode()))

    def response(self, request: web.Request, name: str = INDEX) -> web.Response:
        """Return the response with the file `name`, or with status 304 if the browser has that file already.
        Raise HTTPNotFound if the page has no such file.
        """
        asset = self._assets.get(name)
        if asset is None:
            raise web.HTTPNotFound()
        headers = dict(asset.headers)
        if _has(request, asset.etag):
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            headers[hdrs.CONTENT_ENCODING] = "gzip"
            return web.Response(body=asset.compressed, headers=headers)
        return web.Response(body=gzip.decompress(asset.compressed), headers=headers)


def _read(path: Path) -> Asset:
    text = path.read_bytes()
    etag = _etag(text)
    headers = {
        hdrs.CONTENT_TYPE: f"{CONTENT_TYPES[path.suffix]}; charset=utf-8",
        hdrs.CACHE_CONTROL: "no-cache",  # the browser keeps the file, and asks whether it has changed
        hdrs.ETAG: etag,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
        "Content-Security-Policy": POLICY,
    }
    return Asset(gzip.compress(text, mtime=0), headers, etag)


def _etag(content: bytes) -> str:
    """Return the ETag of this content: a weak one, because the compressed and the plain response share it."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:20]}"'


def _with_etag(asset: Asset, etag: str) -> Asset:
    return Asset(asset.compressed, asset.headers | {hdrs.ETAG: etag}, etag)


def _has(request: web.Request, etag: str) -> bool:
    """Return whether the request's header If-None-Match contains `etag`, so that the browser has the file
    already.
    """
    known = request.headers.get(hdrs.IF_NONE_MATCH, "")
    return etag in (each.strip() for each in known.split(","))
