"""Which requests get the dashboard's page: the header Accept, and the way to the root of the gateway."""

from urllib.parse import quote, urljoin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from celery_gateway.http.views import base_href, names_html, view_path, wants_page

pytestmark = pytest.mark.unit

NAVIGATION = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
"""What Chromium sends if an address is opened; Firefox and Safari send alike."""
VIEWS = (
    *("/", "/events", "/statistics", "/queues", "/failures"),
    *(
        "/tasks",
        "/tasks/5a37",
        "/tasks/a/b",
        "/workflows",
        "/workflows/5a37",
        "/workers",
        "/workers/celery@w1",
    ),
)
OTHERS = (
    *("/healthz", "/readyz", "/metrics", "/ws", "/session", "/tasks/counts", "/events/e-1", "/queues/x"),
    *("/assets/0/app.js", "/tasks/", "/taskss", "/Tasks", "//tasks", "/tasks5a", "/statistics/x", "/nothing"),
)


def scope_of(
    path: str, accept: str = NAVIGATION, *, method: str = "GET", query: str = "", root: str = ""
) -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": root + path,
        "root_path": root,
        "raw_path": quote(root + path).encode(),
        "query_string": query.encode(),
        "headers": [(b"accept", accept.encode())] if accept else [],
    }


@pytest.mark.parametrize("root", ["", "/celery"])
def test_a_navigation_to_a_view_gets_the_page(root: str) -> None:
    for path in VIEWS:
        assert view_path(scope_of(path, root=root)) == path
        assert wants_page(scope_of(path, root=root)), path
        assert wants_page(scope_of(path, method="HEAD", root=root)), path
    for path in OTHERS:
        assert not wants_page(scope_of(path, root=root)), path


@pytest.mark.parametrize("path", VIEWS[1:])
def test_programs_get_the_endpoint(path: str) -> None:
    for accept in ("", "*/*", "application/json", "text/event-stream", "text/*", "application/x-ndjson"):
        assert not wants_page(scope_of(path, accept)), accept
    assert not wants_page(scope_of(path, query="format=json"))
    assert not wants_page(scope_of(path, query="name=x&f%6Frmat=ndjson"))
    assert not wants_page(scope_of(path, query="format"))
    assert wants_page(scope_of(path, query="name=format&state=%46"))
    for method in ("POST", "OPTIONS", "DELETE"):
        assert not wants_page(scope_of(path, method=method))


def test_the_root_is_the_page_for_all() -> None:
    for accept in ("", "*/*", "application/json", NAVIGATION):
        assert wants_page(scope_of("/", accept, query="format=json"))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (NAVIGATION, True),
        ("text/html", True),
        ("TEXT/HTML; charset=utf-8", True),
        ("*/*, text/html;q=0.1", True),
        ("text/html;level=1;q=0.4", True),
        ("application/json, text/html;q=0.9", False),
        ("application/json;q=0.5, text/html", True),
        ("application/json, text/html", False),
        ("text/event-stream, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        ("text/htmlx, xtext/html", False),
        ("text/*", False),
        ("", False),
    ],
)
def test_html_counts_only_by_its_name(accept: str, expected: bool) -> None:
    assert names_html(accept) is expected


ids = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)


@given(
    view=st.sampled_from(["tasks", "workflows", "workers"]),
    id=ids,
    prefix=st.sampled_from(["", "/a", "/a/b c"]),
)
@pytest.mark.parametrize("is_kept", [True, False])
def test_the_base_is_the_root_for_a_browser(is_kept: bool, view: str, id: str, prefix: str) -> None:
    """A proxy removes its prefix, or keeps it; the browser resolves the base against its own URL."""
    if id in (".", ".."):
        return  # a browser takes them as steps of the path
    shown = f"{quote(prefix)}/{view}/{quote(id, safe='')}"
    received = shown if is_kept else shown.removeprefix(quote(prefix))
    scope = scope_of(f"/{view}/{id}", root=prefix) | {"raw_path": received.encode()}
    assert urljoin(f"http://host{shown}", base_href(scope)) == f"http://host{quote(prefix)}/"


@pytest.mark.parametrize("path", [path for path in VIEWS if path.count("/") == 1])
def test_the_base_of_a_list_is_its_own_folder(path: str) -> None:
    for root in ("", "/celery"):
        scope = scope_of(path, root=root)
        assert urljoin(f"http://host{root}{path}", base_href(scope)) == f"http://host{root}/"
        assert base_href({key: value for key, value in scope.items() if key != "raw_path"}) == "./"


def test_a_slash_of_an_id_that_is_not_encoded_is_one_more_step() -> None:
    assert base_href(scope_of("/tasks/a/b") | {"raw_path": b"/tasks/a/b"}) == "../../"
    assert base_href(scope_of("/tasks/a/b") | {"raw_path": b"/tasks/a%2Fb"}) == "../"
