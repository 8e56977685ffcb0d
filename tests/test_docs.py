"""The reference pages against the code: docs/http-api.md and docs/stream-protocol.md leave nothing out.

The names come from a running gateway (its routes, the `allowed` of its errors, its metrics) and from the
source, never from a second list.
"""

import ast
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import pytest_asyncio
from starlette.routing import BaseRoute, Route

import celery_gateway
from celery_gateway.access import access_file
from celery_gateway.access.scope import MAY, Scope
from celery_gateway.asgi import Gateway
from celery_gateway.broker.diagnosis import CODES
from celery_gateway.errors import GatewayError
from celery_gateway.http.metrics_table import COUNTER, OF_LOG
from celery_gateway.settings import Settings
from celery_gateway.stream.messages import CLOSE_CODES, GapReason, Resume

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
PACKAGE = Path(celery_gateway.__file__).parent
HTTP_API = (ROOT / "docs" / "http-api.md").read_text("utf-8")
STREAM_PROTOCOL = (ROOT / "docs" / "stream-protocol.md").read_text("utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text("utf-8")
ANY_CODE = r"[a-z-]+"
WITHOUT_PARAMETERS = {"/", "/healthz", "/readyz", "/metrics", "/assets/{hash}/{name}"}


def named(text: str) -> set[str]:
    """What a page has between backticks."""
    return set(re.findall(r"`([^`\n]+)`", text))


def section(title: str) -> str:
    """One section of the page, with its subsections."""
    _, found, rest = HTTP_API.partition(f"\n## `{title}`\n")
    assert found, f"docs/http-api.md has no section '## `{title}`'"
    return rest.partition("\n## ")[0]


def missing(names: Any, text: str) -> list[str]:
    """The names that a page lacks."""
    return sorted(set(names) - named(text))


@pytest_asyncio.fixture
async def mounted() -> AsyncIterator[Gateway]:
    mounted = Gateway(Settings(broker="memory://", control=True))
    async with mounted.lifespan():
        yield mounted


@pytest_asyncio.fixture
async def client(mounted: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(mounted)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def routes(app: Any) -> list[BaseRoute]:
    """The routes of the application inside its wrappers."""
    while not hasattr(app, "routes"):
        app = app._app
    found: list[BaseRoute] = app.routes
    return found


def path_of(route: BaseRoute) -> str:
    """A route's path as the page writes it: without converters."""
    return re.sub(r":\w+}", "}", route.path)  # type: ignore[attr-defined]


def trees() -> Iterator[ast.AST]:
    """The syntax trees of the package's modules."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ast.parse(path.read_text("utf-8"))


async def test_every_endpoint_and_method_is_documented(mounted: Gateway) -> None:
    expected = set()
    for route in routes(mounted._app):
        methods = (route.methods or set()) - {"HEAD"} if isinstance(route, Route) else {"GET"}
        expected |= {f"{method} {path_of(route)}" for method in methods}
    assert not missing(expected, HTTP_API)


async def test_every_parameter_is_documented_in_the_section_of_its_endpoint(
    mounted: Gateway, client: httpx.AsyncClient
) -> None:
    checked = set()
    for route in routes(mounted._app):
        path = path_of(route)
        if not isinstance(route, Route) or path in WITHOUT_PARAMETERS or path == "/ws":
            continue
        for method in (route.methods or set()) - {"HEAD"}:
            error = (await client.request(method, path, params={"no-such": "x"})).json()["error"]
            assert error["code"] == "unknown-parameter", error
            assert not missing(error["allowed"], section(f"{method} {path}")), f"{method} {path}"
            checked.add(f"{method} {path}")
    assert {"GET /events", "POST /events", "GET /tasks", "GET /workers"} <= checked


@pytest.mark.parametrize(
    ("title", "request_"),
    [
        ("POST /events", ("POST", "/events", {"json": {"no-such": 1}})),
        ("GET /events", ("POST", "/events", {"json": {"any": [{"no-such": "x"}]}})),
        ("GET /tasks/{uuid}", ("GET", "/tasks", {"params": {"fields": "no-such"}})),
        ("GET /workers", ("GET", "/workers", {"params": {"fields": "no-such"}})),
    ],
)
async def test_every_field_is_documented(
    client: httpx.AsyncClient, title: str, request_: tuple[str, str, dict[str, Any]]
) -> None:
    method, path, options = request_
    allowed = (await client.request(method, path, **options)).json()["error"]["allowed"]
    assert len(allowed) > 5
    assert not missing(allowed, section(title))


async def test_every_metric_and_its_reasons_are_documented(client: httpx.AsyncClient) -> None:
    text = (await client.get("/metrics")).text
    names = set(re.findall(r"^(celery_gateway_\w+)", text, re.MULTILINE))
    assert len(names) > 20
    names |= {f"celery_gateway_{each.name}{'_total' * (each.family is COUNTER)}" for each in OF_LOG}
    documented = {name for name in named(section("GET /metrics")) if name.startswith("celery_gateway_")}
    assert documented == names
    assert not missing(re.findall(r'reason="([^"]+)"', text), section("GET /metrics"))


def test_every_code_of_a_broker_is_documented() -> None:
    assert not missing(CODES, section("GET /readyz"))


def test_every_control_message_is_documented() -> None:
    tree = ast.parse((PACKAGE / "stream" / "messages.py").read_text("utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    types = {text for text in texts if isinstance(text, str) and re.fullmatch(r"gateway-[a-z]+", text)}
    assert len(types) >= 9
    assert not missing(types, HTTP_API)
    assert not missing(types, STREAM_PROTOCOL)


def test_every_reason_and_close_code_is_documented() -> None:
    assert not missing({*CLOSE_CODES, *get_args(GapReason), *get_args(Resume)}, STREAM_PROTOCOL)
    for reason, code in CLOSE_CODES.items():
        assert f"| `{reason}` | {code} |" in STREAM_PROTOCOL


def error_codes() -> set[str]:
    """The codes of errors as regular expressions: after an HTTP status, or as the `code` of a BadRequest."""
    codes: list[ast.expr] = []
    for tree in trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "BadRequest"
            ):
                codes += [word.value for word in node.keywords if word.arg == "code"]
            values = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
            codes += [code for status, code in zip(values, values[1:], strict=False) if is_error(status)]
    return {pattern for code in codes if (pattern := pattern_of(code)) != ANY_CODE}


def is_error(status: ast.expr) -> bool:
    """Whether an expression is a status of HTTP that needs a code."""
    value = status.value if isinstance(status, ast.Constant) else None
    return type(value) is int and 400 <= value < 600


def pattern_of(code: ast.expr) -> str:
    """An expression as a regular expression; what it computes may be anything."""
    match code:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(map(pattern_of, parts))
        case ast.IfExp(body=body, orelse=orelse):
            return f"{pattern_of(body)}|{pattern_of(orelse)}"
    return ANY_CODE


@pytest.mark.slow
def test_every_error_code_is_documented() -> None:
    *_, errors = HTTP_API.partition("\n## Errors\n")
    rows = [row.split("|") for row in errors.splitlines() if re.match(r"\| \d{3} ", row)]
    documented = named("\n".join(code for _, _, code, *_ in rows))
    codes = error_codes() | {"not-found", "method-not-allowed", "request-timeout"}  # the phrase of a status
    assert len(codes) > 20
    assert not sorted(code for code in codes if not any(re.fullmatch(code, name) for name in documented))
    assert not sorted(name for name in documented if not any(re.fullmatch(code, name) for code in codes))


def test_every_conformance_table_is_named() -> None:
    tables = {path.name for path in (ROOT / "tests" / "conformance").glob("*.json")}
    assert tables
    assert not missing(tables, STREAM_PROTOCOL)


@pytest.mark.parametrize("page", ["glossary.md", "how-it-works.md"])
def test_every_module_that_is_named_exists(page: str) -> None:
    names = named((ROOT / "docs" / page).read_text("utf-8"))
    modules = {name for name in names if re.fullmatch(r"[a-z_]+/(?:[a-z_/]+\.py|[a-z_/]*)?", name)}
    assert len(modules) > 5
    assert not sorted(name for name in modules if not (PACKAGE / name).exists())


def test_the_access_files_in_the_docs_are_valid(tmp_path: Path) -> None:
    (tmp_path / "shop.secret").write_text("x" * 64)
    texts = re.findall(r"(?ms)^```toml\n(.*?)^```$", SECURITY)
    texts.append((ROOT / "docs" / "examples" / "auth.toml").read_text("utf-8"))
    assert len(texts) >= 4
    for text in texts:
        path = tmp_path / "auth.toml"
        path.write_text(text)
        access_file.read(path)


@pytest.mark.parametrize(
    "table", ["", "[tokens.a]", "[issuers.a]", "[proxy]", '[proxy]\nuser_header = "X-User"\n[proxy.users.a]']
)
def test_every_key_of_the_access_file_is_documented(tmp_path: Path, table: str) -> None:
    path = tmp_path / "auth.toml"
    path.write_text(f"{table}\nno-such = 1\n")
    with pytest.raises(GatewayError, match="unknown key") as refused:
        access_file.read(path)
    allowed = str(refused.value).partition("allowed are ")[2].split(", ")
    keys = {found for name in named(SECURITY) for found in re.split(r"[\[\].\s\"]+", name)}
    assert allowed != [""]
    assert not sorted(set(allowed) - keys)


def test_every_key_of_a_scope_is_documented() -> None:
    with pytest.raises(ValueError, match="unknown key") as refused:
        Scope.parse({"no-such": 1})
    allowed = str(refused.value).partition("allowed are ")[2].split(", ")
    assert not missing([*allowed, *MAY], SECURITY.partition("\n## Scopes\n")[2].partition("\n## ")[0])
