"""Serve the page: one file that loads nothing else, under a policy that lets only its own script run."""

import base64
import hashlib
import re
from pathlib import Path

from aiohttp import web

FILE = Path(__file__).with_name("status.html")


class Page:
    """The page and its Content-Security-Policy, read once from status.html."""

    def __init__(self) -> None:
        self._text = FILE.read_text(encoding="utf-8")
        policy = {
            "default-src": "'none'",
            "script-src": self._hashes("script"),
            "style-src": self._hashes("style"),
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        self._policy = "; ".join(f"{name} {value}" for name, value in policy.items())

    def response(self) -> web.Response:
        """Return the page as an HTTP response."""
        headers = {"Content-Security-Policy": self._policy}
        return web.Response(text=self._text, content_type="text/html", charset="utf-8", headers=headers)

    def _hashes(self, tag: str) -> str:
        """Return the hashes of the page's own blocks of this tag, as the policy wants them."""
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", self._text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
        return " ".join(f"'sha256-{digest}'" for digest in digests)
