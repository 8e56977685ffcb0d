"""A reverse proxy that authenticates: a real nginx with the files of deploy/nginx, before a real gateway.

nginx asks a server that answers as oauth2-proxy's `/oauth2/auth` does: 202 with `X-Auth-Request-User`, or
401. nginx connects to the gateway from 127.0.0.2, which is a trusted proxy. Clients of the gateway itself
come from 127.0.0.1, which is not.
"""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from celery_gateway.access.static_tokens import hash_text, new_token
from tests.support.gateway_process import GatewayProcess
from tests.support.nginx import Nginx
from tests.support.publisher import Publisher, task_event, walk
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream

PROXY = "127.0.0.2"
TOKEN = new_token()
ACCESS = f"""
[tokens.service]
hash = "{hash_text(TOKEN)}"
scope = {{ may = ["workers"] }}

[proxy]
user_header = "X-Forwarded-User"

[proxy.users.alice]
scope = {{ any = [{{ name = ["shop.*"] }}], hide = ["args", "kwargs"] }}

[proxy.users.admin]
scope = {{ may = ["events", "state", "workers", "metrics", "dashboard"] }}
"""
USERS = {"alice": "alice", "admin": "admin", "carol": "carol", "nameless": ""}
"""The user of each session. carol has no entry in the access file."""


def cookie(session: str) -> dict[str, str]:
    return {"Cookie": f"_oauth2_proxy={session}"}


@contextmanager
def identity_provider() -> Iterator[int]:
    """The port of a server that answers as oauth2-proxy does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            session = self.headers.get("Cookie", "").removeprefix("_oauth2_proxy=")
            is_known = self.path == "/oauth2/auth" and session in USERS
            self.send_response(202 if is_known else 401)
            if is_known and USERS[session]:
                self.send_header("X-Auth-Request-User", USERS[session])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@contextmanager
def running(server: Nginx | GatewayProcess) -> Iterator[None]:
    try:
        server.start()
        yield
    finally:
        server.stop()


def options(folder: Path, *more: str) -> list[str]:
    path = folder / "auth.toml"
    path.write_text(ACCESS)
    return ["--auth", str(path), "--root-path", "/celery", *more]


@pytest.fixture(scope="module")
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(broker, folder, options=options(folder, "--trusted-proxies", PROXY))
    with running(process):
        yield process


def in_front_of(gateway: GatewayProcess, folder: Path, port: int) -> Nginx:
    """nginx as docs/security.md has it; the server at the port knows the users."""
    session = "include celery-gateway/session.conf; include celery-gateway/authenticated-user.conf;"
    replace = {
        "nginx.conf": {"include celery-gateway/sub-path-kept.conf;": session},
        "session.conf": {"http://127.0.0.1:8000/may-watch-tasks": f"http://127.0.0.1:{port}/oauth2/auth"},
        "authenticated-user.conf": {"location /celery/ {": f"location /celery/ {{ proxy_bind {PROXY};"},
    }
    return Nginx(folder, gateway.port, replace=replace)


@pytest.fixture(scope="module")
def nginx(gateway: GatewayProcess, folder: Path) -> Iterator[Nginx]:
    with identity_provider() as port:
        server = in_front_of(gateway, folder / "nginx", port)
        with running(server):
            yield server


@pytest.fixture(scope="module")
def events(gateway: GatewayProcess, nginx: Nginx, publisher: Publisher) -> None:
    """One task of alice's scope, and one outside of it."""
    publisher.send(*walk("shop.pay", uid="u-pay"), *walk("audit.record", uid="u-audit"))
    url = f"{nginx.url}/tasks/u-audit"
    assert wait_for(lambda: httpx.get(url, headers=cookie("admin")).status_code == 200, 15)


def is_of_alice(nginx: Nginx, headers: Any) -> None:
    """Check that a request has alice's scope, no more and no less."""
    with httpx.Client(base_url=nginx.url, headers=headers) as client:
        tasks = client.get("/tasks").json()["tasks"]
        assert [task["uuid"] for task in tasks] == ["u-pay"]
        assert "args" not in tasks[0]
        assert client.get("/tasks/u-audit").status_code == 404
        assert client.get("/workers").status_code == 403


@pytest.mark.usefixtures("events")
class TestUsers:
    def test_each_user_has_a_scope(self, nginx: Nginx) -> None:
        is_of_alice(nginx, cookie("alice"))
        with httpx.Client(base_url=nginx.url, headers=cookie("admin")) as client:
            tasks = client.get("/tasks").json()["tasks"]
            assert {task["uuid"] for task in tasks} == {"u-pay", "u-audit"}
            assert "args" in tasks[0]
            assert client.get("/workers").status_code == client.get("/metrics").status_code == 200
            assert "<title>" in client.get("/").text

    def test_a_stream_has_the_scope_of_its_user(self, nginx: Nginx, publisher: Publisher) -> None:
        with (
            NdjsonStream(nginx.url, {"since": "earliest"}, cookie("alice")) as alice,
            connect(
                f"ws://127.0.0.1:{nginx.port}/celery/ws", additional_headers=cookie("alice")
            ) as websocket,
        ):
            assert json.loads(websocket.recv(timeout=20))["type"] == "gateway-open"
            publisher.send(task_event("task-progress", "u-audit"), task_event("task-progress", "u-pay", n=1))
            alice.until(lambda got: any(event.get("n") == 1 for event in got))
            assert {event["uuid"] for event in alice.events} == {"u-pay"}
            message: dict[str, Any] = {}
            while "uuid" not in message:
                message = json.loads(websocket.recv(timeout=20))
            assert (message["uuid"], message["n"]) == ("u-pay", 1)

    def test_others_are_refused(self, nginx: Nginx) -> None:
        without_entry = httpx.get(f"{nginx.url}/tasks", headers=cookie("carol"))
        assert (without_entry.status_code, without_entry.json()["error"]["code"]) == (403, "forbidden")
        assert "carol" not in without_entry.text
        # nginx itself answers this one.
        assert httpx.get(f"{nginx.url}/tasks").status_code == 401
        # nginx lets this one pass, without a name.
        nameless = httpx.get(f"{nginx.url}/tasks", headers=cookie("nameless"))
        assert (nameless.status_code, nameless.json()["error"]["code"]) == (401, "unauthorized")


SMUGGLED = [
    [("X-Forwarded-User", "admin")],
    [("X-Forwarded-User", "admin"), ("X-Forwarded-User", "admin")],
    [("x-forwarded-user", "admin")],
    [("X_Forwarded_User", "admin")],
    [("X-Forwarded-User", "")],
    [("X-Auth-Request-User", "admin")],
    # Asks the proxy to drop its own header, so that the client's counts.
    [("Connection", "X-Forwarded-User"), ("X-Forwarded-User", "admin")],
    [("X-Forwarded-For", PROXY), ("X-Forwarded-User", "admin")],
    [("X-Forwarded-User", "alice, admin")],
]


@pytest.mark.usefixtures("events")
class TestSmuggledHeaders:
    @pytest.mark.parametrize("headers", SMUGGLED)
    def test_a_client_of_the_proxy_cannot_choose_its_name(
        self, nginx: Nginx, headers: list[tuple[str, str]]
    ) -> None:
        is_of_alice(nginx, [*cookie("alice").items(), *headers])
        nameless = httpx.get(f"{nginx.url}/tasks", headers=[*cookie("nameless").items(), *headers])
        assert nameless.status_code == 401, nameless.text
        assert httpx.get(f"{nginx.url}/tasks", headers=headers).status_code == 401
        with pytest.raises(InvalidStatus) as refused:
            connect(
                f"ws://127.0.0.1:{nginx.port}/celery/ws",
                additional_headers=[*cookie("nameless").items(), *headers[-1:]],
            )
        assert refused.value.response.status_code == 401

    @pytest.mark.parametrize("headers", SMUGGLED)
    def test_the_header_of_another_peer_is_ignored(
        self, gateway: GatewayProcess, headers: list[tuple[str, str]]
    ) -> None:
        for path in ("/tasks", "/workers", "/events", "/metrics"):
            answer = httpx.get(f"{gateway.url}{path}", headers=headers)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "unauthorized"
        # It has no effect on a token either.
        bearer = [("Authorization", f"Bearer {TOKEN}")]
        assert httpx.get(f"{gateway.url}/workers", headers=[*bearer, *headers]).status_code == 200
        assert httpx.get(f"{gateway.url}/tasks", headers=[*bearer, *headers]).status_code == 403

    def test_two_headers_of_the_proxy_do_not_count(self, gateway: GatewayProcess) -> None:
        """As from a proxy that adds its header to the client's own."""
        with closing(
            HTTPConnection("127.0.0.1", gateway.port, timeout=20, source_address=(PROXY, 0))
        ) as connection:
            for users, status in ((["alice"], 200), (["admin", "alice"], 401), (["alice", "admin"], 401)):
                connection.putrequest("GET", "/tasks")
                for user in users:
                    connection.putheader("X-Forwarded-User", user)
                connection.endheaders()
                response = connection.getresponse()
                response.read()
                assert response.status == status, users

    def test_a_second_request_in_the_body_of_the_first_is_no_request(self, nginx: Nginx) -> None:
        """Request smuggling: nginx and the gateway agree on where a request ends."""
        inner = "GET /celery/workers HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-User: admin\r\n\r\n"
        for framing in (
            f"Content-Length: {len(inner)}\r\n\r\n{inner}",
            f"Transfer-Encoding: chunked\r\n\r\n{len(inner):x}\r\n{inner}\r\n0\r\n\r\n",
            f"Content-Length: {len(inner)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
            f"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}",
        ):
            with closing(HTTPConnection("127.0.0.1", nginx.port, timeout=20)) as connection:
                connection.connect()
                head = "GET /celery/tasks HTTP/1.1\r\nHost: localhost\r\nCookie: _oauth2_proxy=alice\r\n"
                connection.sock.sendall(
                    f"{head}{framing}GET /celery/healthz HTTP/1.1\r\nHost: localhost\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                got = b""
                while chunk := connection.sock.recv(1 << 16):
                    got += chunk
            assert b'"workers"' not in got, framing


def test_without_trusted_proxies_no_header_counts(broker: str, folder: Path, tmp_path: Path) -> None:
    gateway = GatewayProcess(broker, folder, options=options(tmp_path))
    with running(gateway), identity_provider() as port:
        nginx = in_front_of(gateway, tmp_path / "nginx", port)
        with running(nginx):
            for user in ("alice", "admin", "carol"):
                answer = httpx.get(f"{nginx.url}/tasks", headers=cookie(user))
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            assert httpx.get(f"{nginx.url}/workers", headers=cookie("alice") | bearer).status_code == 200


def test_a_service_with_a_token_through_the_proxy(
    gateway: GatewayProcess, nginx: Nginx, tmp_path: Path
) -> None:
    """On a path that nginx exempts from the login; nginx removes the header there."""
    exempt = (
        f"location /celery/workers {{ proxy_bind {PROXY}; proxy_pass http://celery_gateway; "
        'include celery-gateway/proxy.conf; proxy_set_header X-Forwarded-User ""; }'
    )
    with identity_provider() as port:
        server = in_front_of(gateway, tmp_path / "nginx", port)
        path = server.folder / "celery-gateway" / "authenticated-user.conf"
        path.write_text(f"{path.read_text()}{exempt}\n")
        with running(server):
            smuggled = {"X-Forwarded-User": "admin"}
            url = f"{server.url}/workers"
            assert httpx.get(url, headers=smuggled).status_code == 401
            assert httpx.get(url, headers=smuggled | {"Authorization": f"Bearer {TOKEN}"}).status_code == 200
