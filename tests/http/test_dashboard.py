"""The dashboard as it is served: its page at the addresses of the endpoints, its files, and their headers."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from celery_gateway import __version__
from celery_gateway.asgi import Gateway
from celery_gateway.http.dashboard import POLICY, Dashboard, load
from celery_gateway.settings import Settings
from tests.support.access_file import AccessFile
from tests.support.portable_server import in_thread

BROKER = "memory://localhost"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGES = (
    "/",
    "/events",
    "/tasks",
    "/tasks/5a37",
    "/workflows/5a37",
    "/workers",
    "/workers/celery@w1",
    "/queues",
)
YEAR = "public, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with in_thread(Gateway(Settings(broker=BROKER))) as (_, url):
        yield url


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="module")
def built() -> Dashboard:
    return load()


def asset_urls(page: httpx.Response) -> list[str]:
    base = page.url.join(re.findall(r'<base href="([^"]*)">', page.text)[0])
    return [str(base.join(path)) for path in re.findall(r'(?:src|href)="(assets/[^"]*)"', page.text)]


@pytest.mark.parametrize("path", PAGES)
def test_a_browser_gets_the_page_and_its_files(http: httpx.Client, url: str, path: str) -> None:
    page = http.get(url + path, headers=HTML)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    about = f'data-access="open" data-may="events state workers" data-actions="" data-version="{__version__}"'
    assert about in page.text
    assert "inline" not in page.text and "style=" not in page.text and "<script>" not in page.text
    loaded = asset_urls(page)
    assert [each.rpartition("/")[2] for each in loaded] == ["app.css", "app.js"]
    for each in loaded:
        assert http.get(each).status_code == 200, each


@pytest.mark.parametrize("path", ["/tasks", "/workers", "/statistics", "/failures", "/queues", "/workflows"])
def test_programs_get_json_at_the_same_address(http: httpx.Client, url: str, path: str) -> None:
    for headers, query in (({}, ""), ({"Accept": "application/json"}, ""), (HTML, "?format=json")):
        response = http.get(url + path + query, headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert "Accept" in response.headers["vary"]
    assert http.head(url + path, headers=HTML).headers["content-type"].startswith("text/html")


def test_the_stream_is_at_the_address_of_its_page(http: httpx.Client, url: str) -> None:
    with http.stream("GET", f"{url}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert "Accept" in stream.headers["vary"]
    with http.stream("GET", f"{url}/events?format=ndjson", headers=HTML) as stream:
        assert stream.headers["content-type"].startswith("application/x-ndjson")


def test_the_page_is_revalidated(http: httpx.Client, url: str) -> None:
    page = http.get(f"{url}/tasks", headers=HTML)
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["vary"] == "Accept"
    etag = page.headers["etag"]
    again = http.get(f"{url}/tasks", headers={**HTML, "If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert again.headers["cache-control"] == "no-cache"
    assert http.get(f"{url}/tasks/x", headers={**HTML, "If-None-Match": etag}).status_code == 200
    head = http.head(f"{url}/tasks", headers=HTML)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)


def test_the_headers_of_the_page(http: httpx.Client, url: str) -> None:
    headers = http.get(f"{url}/workflows/x", headers=HTML).headers
    policy = headers["content-security-policy"]
    assert policy == POLICY
    assert "unsafe" not in policy and "sha256" not in policy
    for rule in (
        *(
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src data:",
        ),
        *("base-uri 'self'", "form-action 'none'", "frame-ancestors 'none'"),
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    ):
        assert rule in policy.split("; ")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-frame-options"] == "DENY"
    assert "camera=()" in headers["permissions-policy"]


def test_methods_of_the_root(http: httpx.Client, url: str) -> None:
    assert http.options(url).headers["allow"] == "GET, HEAD, OPTIONS"
    assert http.post(url).status_code == 405
    assert http.options(f"{url}/events", headers=HTML).headers["allow"] == "GET, HEAD, OPTIONS, POST"


def test_files_are_compressed_and_kept(http: httpx.Client, url: str, built: Dashboard) -> None:
    for name, asset in built.assets.items():
        address = f"{url}/assets/{built.hash}/{name}"
        plain = http.get(address, headers={"Accept-Encoding": "identity"})
        assert plain.content == asset.body
        assert "content-encoding" not in plain.headers
        small = http.get(address, headers={"Accept-Encoding": "br, gzip"})
        assert small.content == asset.body, "httpx has decompressed it"
        is_gzipped = len(asset.gzipped) < len(asset.body)
        assert (small.headers.get("content-encoding") == "gzip") is is_gzipped
        for response in (plain, small):
            assert response.headers["cache-control"] == YEAR
            assert response.headers["vary"] == "Accept-Encoding"
            assert response.headers["content-type"] == asset.media_type
            etag = response.headers["etag"]
            encoding = response.request.headers["accept-encoding"]
            again = http.get(address, headers={"Accept-Encoding": encoding, "If-None-Match": etag})
            assert (again.status_code, again.headers["etag"]) == (304, etag)
        assert (plain.headers["etag"] != small.headers["etag"]) is is_gzipped
        head = http.head(address, headers={"Accept-Encoding": "gzip"})
        assert int(head.headers["content-length"]) == min(len(asset.gzipped), len(asset.body))


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("gzip", True),
        ("br;q=1.0, gzip;q=0.8", True),
        ("*", True),
        ("*;q=0, gzip;q=0.1", True),
        ("GZIP ; q=1.000", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0000", False),
        ("*;q=0.5, gzip;q=0", False),
        ("*;q=0", False),
        ("br", False),
        ("", False),
    ],
)
def test_compression_is_negotiated(
    http: httpx.Client, url: str, built: Dashboard, accept_encoding: str, expected: bool
) -> None:
    headers = {"Accept-Encoding": accept_encoding}
    with http.stream("GET", f"{url}/assets/{built.hash}/app.js", headers=headers) as response:
        body = b"".join(response.iter_raw())
    assert (response.headers.get("content-encoding") == "gzip") is expected
    assert (gzip.decompress(body) if expected else body) == built.assets["app.js"].body


def test_files_of_another_version_are_unknown(http: httpx.Client, url: str, built: Dashboard) -> None:
    for path in (
        "0000/app.js",
        f"{built.hash}/nothing.js",
        f"{built.hash}/index.html",
        f"{built.hash}/..%2fapp.py",
    ):
        response = http.get(f"{url}/assets/{path}")
        assert response.status_code == 404
        assert response.headers["cache-control"] == "no-store"
        assert response.json()["error"]["code"] == "not-found"


@pytest.mark.unit
def test_the_hash_is_that_of_the_files() -> None:
    first, second = load(), load.__wrapped__()
    assert first == second
    assert re.fullmatch("[0-9a-f]{16}", first.hash)
    assert "index.html" not in first.assets
    assert {"app.js", "core.js", "app.css", "licenses.txt"} <= set(first.assets)
    assert b"preact" in first.assets["licenses.txt"].body


def test_a_mounted_gateway_has_its_page(http: httpx.Client) -> None:
    gateway = Gateway(Settings(broker=BROKER))
    app = Starlette(routes=[Mount("/tools/celery", gateway)], lifespan=gateway.lifespan)
    with in_thread(app) as (_, url):
        for path in PAGES:
            page = http.get(f"{url}/tools/celery{path}", headers=HTML)
            assert page.status_code == 200
            for each in asset_urls(page):
                assert each.startswith(f"{url}/tools/celery/assets/")
                assert http.get(each).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/celery"])
def test_a_sub_path_may_be_kept_or_removed(http: httpx.Client, prefix: str) -> None:
    with in_thread(Gateway(Settings(broker=BROKER, root_path="/celery"))) as (_, url):
        for path in PAGES:
            page = http.get(url + prefix + path, headers=HTML)
            assert page.status_code == 200
            for each in asset_urls(page):
                assert each.startswith(f"{url}{prefix}/assets/")
                assert http.get(each).status_code == 200


def test_who_has_no_token_gets_the_form(http: httpx.Client, tmp_path: Path, built: Dashboard) -> None:
    file = AccessFile(tmp_path)
    full, reader = file.create("full", ["state", "dashboard"]), file.create("reader", ["state"])
    with in_thread(Gateway(Settings(broker=BROKER, auth=str(file.path)))) as (_, url):
        for path in ("/", "/tasks", "/tasks/x"):
            for token, status, access in (
                ("", 401, "login"),
                (reader, 403, "forbidden"),
                (full, 200, "token"),
            ):
                headers = HTML | ({"Authorization": f"Bearer {token}"} if token else {})
                page = http.get(url + path, headers=headers)
                assert (page.status_code, page.headers["content-type"]) == (
                    status,
                    "text/html; charset=utf-8",
                )
                assert f'data-access="{access}"' in page.text
                assert (__version__ in page.text) is (status == 200)
                assert f'data-may="{"state" if status == 200 else ""}"' in page.text
                assert page.headers["content-security-policy"] == POLICY
                assert ("www-authenticate" in page.headers) is (status != 200)
                assert page.headers["cache-control"] == ("no-cache" if status == 200 else "no-store")
                assert {"Accept", "Authorization", "Cookie"} == set(re.split(", ?", page.headers["vary"]))
        for path in ("/", "/tasks"):
            refused = http.get(url + path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
        allowed = http.get(f"{url}/tasks", headers={"Authorization": f"Bearer {reader}"})
        assert allowed.json()["tasks"] == []
        file_response = http.get(f"{url}/assets/{built.hash}/app.js")
        assert (file_response.status_code, file_response.headers["vary"]) == (200, "Accept-Encoding")


def test_the_page_has_the_actions_of_the_token(http: httpx.Client, tmp_path: Path) -> None:
    file = AccessFile(tmp_path)
    settings = Settings(broker=BROKER, auth=str(file.path), allow=["revoke", "terminate"])
    may = {
        "revoke": ["dashboard", "revoke"],
        "": ["dashboard"],
        "revoke terminate": ["dashboard", "revoke", "terminate"],
    }
    tokens = {actions: file.create(f"user{len(actions)}", each) for actions, each in may.items()}
    with in_thread(Gateway(settings)) as (_, url):
        for actions, token in tokens.items():
            page = http.get(url, headers={"Authorization": f"Bearer {token}"})
            assert f'data-actions="{actions}"' in page.text
