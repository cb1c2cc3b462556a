"""The served files of the status page: headers, size on the wire, and paths that are not served."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from host_agent.status_page.page import ASSETS, Page

MAX_BYTES_ON_THE_WIRE = 200_000
PAGE = Page()


def request(**headers: str) -> web.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/assets/x", headers=named)


def body(response: web.Response) -> bytes:
    assert isinstance(response.body, bytes)
    return response.body


def test_status_page_files_are_at_most_200_kilobytes_in_all_when_compressed():
    names = [
        path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*") if path.suffix in (".js", ".css")
    ]
    assert len(names) > 10
    sent = [PAGE.response(request(Accept_Encoding="gzip"), name) for name in ["index.html", *names]]
    assert sum(len(body(each)) for each in sent) <= MAX_BYTES_ON_THE_WIRE


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("index.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("vendor/uplot.js", "text/javascript; charset=utf-8"),
        ("vendor/uplot.LICENSE.txt", "text/plain; charset=utf-8"),
    ],
)
def test_status_page_file_has_content_type_cache_control_and_content_security_policy_headers(
    name: str, content_type: str
):
    response = PAGE.response(request(), name)
    assert response.headers["Content-Type"] == content_type
    assert response.headers["Cache-Control"] == "no-cache"
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"} <= set(
        policy
    )
    assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_status_page_file_is_compressed_only_for_a_client_that_accepts_gzip():
    plain = PAGE.response(request(), "main.js")
    small = PAGE.response(request(Accept_Encoding="deflate, gzip, br"), "main.js")
    assert "Content-Encoding" not in plain.headers
    assert small.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body(small)) == body(plain) == (ASSETS / "main.js").read_bytes()


def test_status_page_file_with_the_etag_of_the_browsers_copy_is_answered_by_304():
    etag = PAGE.response(request(), "main.js").headers["ETag"]
    again = PAGE.response(request(If_None_Match=f'"other", {etag}'), "main.js")
    assert (again.status, again.body, again.headers["ETag"]) == (304, None, etag)
    assert PAGE.response(request(If_None_Match='"other"'), "main.js").status == 200


@pytest.mark.parametrize(
    "name", ["../page.py", "/etc/passwd", "vendor", "", "..", "vendor/../../page.py", "x.js"]
)
def test_path_outside_the_files_of_the_status_page_is_404(name: str):
    with pytest.raises(web.HTTPNotFound):
        PAGE.response(request(), name)


def test_status_page_serves_the_files_read_at_start_although_an_upgrade_replaced_them(tmp_path: Path):
    (tmp_path / "index.html").write_text("old")
    page = Page(tmp_path)
    (tmp_path / "index.html").write_text("new")
    assert body(page.response(request())) == b"old"


def test_status_page_index_contains_no_inline_script_or_style():
    text = (ASSETS / "index.html").read_text()
    assert "<style" not in text and "style=" not in text and "onclick" not in text
    assert text.count("<script") == 1 and 'src="/assets/main.js"></script>' in text
