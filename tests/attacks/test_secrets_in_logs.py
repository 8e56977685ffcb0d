"""No log, error or header of a gateway has a secret that a client has sent, or that the gateway has read.

The gateway is a real process, and a real application with uvicorn's access log around it.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidHandshake
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from celery_gateway.access.static_tokens import hash_text, new_token
from celery_gateway.http.carriers import COOKIE
from tests.support.attacks import ask
from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import PortableServer
from tests.support.rabbitmq import wait_for
from tests.support.token_issuer import SECRET, claims, issuer_file, segment, token

STATIC, REMOVED = new_token(), new_token()
FULL = {"may": ["events", "state", "workers", "metrics", "dashboard"]}
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT")
PATHS = (
    "/tasks",
    "/events?format=ndjson&uuid=a&until=x",
    "/metrics",
    "/",
    "/session",
    "/ws",
    "/events/",
    "/x",
)
Server = GatewayProcess | PortableServer


class Client:
    """Sends requests with secrets, and remembers these, and all that has been answered."""

    def __init__(self, url: str, port: int) -> None:
        self.url = url
        self.port = port
        self.secrets: set[str] = {SECRET, STATIC, REMOVED}
        self.answers: list[str] = []
        self._client = httpx.Client(timeout=10)

    def secret(self, text: str) -> str:
        """Remember a secret: it, and the parts of it that are secret on their own."""
        self.secrets.add(text)
        if text.count(".") == 2:
            self.secrets.update(part for part in text.split(".")[1:] if len(part) > 8)
        return text

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> None:
        response = self._client.request(method, self.url + target, headers=headers, content=body)
        self.answers.append(f"{response.status_code} {response.headers} {response.text}")
        if cookie := response.headers.get("set-cookie"):
            self.secret(cookie.partition("=")[2].partition(";")[0])

    def found(self, text: str) -> list[str]:
        return [secret for secret in self.secrets if secret and secret in text]

    def close(self) -> None:
        self._client.close()


@pytest.fixture(params=["process", "uvicorn"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    may = json.dumps(FULL["may"])
    tokens = f'[tokens.static]\nhash = "{hash_text(STATIC)}"\nscope = {{ may = {may} }}\n'
    removed = tokens.replace("static", "removed").replace(hash_text(STATIC), hash_text(REMOVED))
    path = issuer_file(tmp_path / "auth", tokens + removed)
    made: Server
    if request.param == "process":
        made = GatewayProcess("memory://localhost", tmp_path, options=["--auth", path])
    else:
        made = PortableServer("memory://localhost", tmp_path, server="uvicorn", settings={"auth": path})
    made.start()
    yield made
    made.stop()


def carriers(text: str) -> list[tuple[str, dict[str, str]]]:
    """Queries and headers that carry a token, in good and bad forms."""
    encoded = "".join(f"%{ord(character):02X}" for character in text)
    return [
        ("", {"authorization": f"Bearer {text}"}),
        ("", {"authorization": f"bearer  {text}"}),
        ("", {"authorization": text}),
        ("", {"authorization": f"Basic {text}"}),
        ("", {"authorization": f"Bearer {text}, Bearer {text}"}),
        ("", {"cookie": f"{COOKIE}=a-session.{text}"}),
        ("", {"cookie": f"{COOKIE}={text}; {COOKIE}=x.{text}"}),
        (f"access_token={text}", {}),
        (f"access_token={encoded}", {}),
        (f"access%5Ftoken={text}", {}),
        (f"ACCESS_TOKEN={text}", {}),
        (f"access_token={text}&access_token={text}", {}),
        (f"token={text}&jwt={text}&api_key={text}", {}),
        (f"access_token={text}&nmae=x", {"referer": f"https://shop.example/?access_token={text}"}),
    ]


def test_nothing_that_is_secret_is_logged_or_answered(server: Server, tmp_path: Path) -> None:
    client = Client(server.url, server.port)
    tokens = [
        token(celery_gateway=FULL),
        STATIC,
        token(celery_gateway={"may": []}),
        token(exp=1, celery_gateway=FULL),
        token("another key that is long enough: 0123456789", celery_gateway=FULL),
        token(celery_gateway={"any": [{"args": ["secret-argument"]}]}),
        f"{segment({'alg': 'none'})}.{segment(claims(sub='secret-subject'))}.",
        new_token(),
        "no-token-at-all-but-secret",
    ]
    for text in map(client.secret, tokens):
        for number, ((query, headers), path) in enumerate(product(carriers(text), PATHS)):
            if (number + len(text)) % 3:
                continue  # each combination comes with some of the tokens
            target = f"{path}{'&' if '?' in path else '?'}{query}" if query else path
            client.send(METHODS[number % len(METHODS)], target, headers)
        handshake(client, text)
        client.send("POST", "/session", {"authorization": f"Bearer {text}"})
        body = json.dumps({"access_token": text}).encode()
        client.send("POST", f"/events?access_token={text}", {}, body)
    for text in tokens[:4]:
        raw(client, text)
    restart_of_the_file(client, tmp_path / "auth", server)
    client.close()
    assert wait_for(lambda: server.log.stat().st_size > 0, 5)
    log = server.log.read_text()
    assert client.found(log) == [], "secrets in the log"
    assert "secret-argument" not in log and "secret-subject" not in log
    if isinstance(server, PortableServer):
        assert log.count('HTTP/1.1" 401') > 20, "the access log was on"
        assert "access_token=***" in log
    assert len(client.answers) > 300
    answers = "\n".join(re.sub(r"'set-cookie': '[^']*'", "", answer) for answer in client.answers)
    assert client.found(answers) == [], "secrets in answers"


def handshake(client: Client, text: str) -> None:
    """WebSockets with the token in a subprotocol, in the query, and in an operation."""
    uri = client.url.replace("http", "ws", 1) + "/ws"
    offered = [["celery-gateway", f"celery-gateway.bearer.{text}"], [f"celery-gateway.bearer.{text}"]]
    offered += [["celery-gateway", f"celery-gateway.bearer.{text}", f"celery-gateway.bearer.x{text}"], []]
    for names in offered:
        target = f"{uri}?access_token={text}" if not names else uri
        subprotocols = [Subprotocol(name) for name in names] or None
        with (
            suppress(InvalidHandshake, TimeoutError),
            connect(target, subprotocols=subprotocols) as websocket,
        ):
            assert text not in (websocket.subprotocol or "")
            websocket.send(json.dumps({"op": "open", "access_token": text}))
            for _ in range(3):
                message = str(websocket.recv(timeout=2))
                client.answers.append(message)
                if "gateway-error" in message:
                    break


def raw(client: Client, text: str) -> None:
    """Requests that no library sends: malformed, cut, and with the token at odd places."""
    root = client.url.partition(f":{client.port}")[2]
    head = f"Host: localhost\r\nAuthorization: Bearer {text}\r\n"
    requests = (
        f"GET {root}/tasks HTTP/1.1\r\n{head}Authorization: Bearer {text}\r\nConnection: close\r\n\r\n",
        f"GET {root}/tasks?access_token={text} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        f"GET {root}/tasks?access_token={text} HTTP/1.1\r\nConnection: close\r\n\r\n",
        f"GET {root}/tasks?access_token={text} HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n"
        "Connection: close\r\n\r\n",
        f"GET {root}/ws?access_token={text} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        f"POST {root}/events?access_token={text} HTTP/1.1\r\n{head}Content-Length: x\r\n\r\n",
        f"GET {root}/tasks HTTP/1.1\r\n{head}X: {'y' * 200_000}\r\n\r\n",
        f"G\x01T {root}/tasks?access_token={text} HTTP/1.1\r\n{head}\r\n",
        f"GET {root}/tasks?access_token={text} HTTP/9.9\r\n{head}\r\n",
    )
    for request in requests:
        answer = ask(client.port, request.encode("latin-1"), seconds=0.3)
        client.answers.append(answer.decode("latin-1"))


def restart_of_the_file(client: Client, folder: Path, server: Server) -> None:
    """Changes of the access file: a token in place of its hash, a key in place of a secret, broken TOML."""
    path = folder / "issuer.toml"
    before = path.read_text()
    broken = [
        before.replace(hash_text(REMOVED), REMOVED),
        before + f'\n[tokens.x]\nhash = "{STATIC}"\nscope = {{}}\n',
        before + f'\n[tokens.x]\ntoken = "{STATIC}"\n',
        before + f'\n[issuers.x]\nissuer = "x"\nalgorithm = "HS256"\nsecret = "{SECRET}"\n',
        before + f"\n{SECRET}\n",
        before + f'\n[tokens."{STATIC}"',
    ]
    log = server.log
    for text in broken:
        size = log.stat().st_size
        path.write_text(text)
        assert wait_for(lambda size=size: log.stat().st_size > size, 10), text  # type: ignore[misc]
    path.write_text(before.partition("[tokens.removed]")[0])
    removed = {"authorization": f"Bearer {REMOVED}"}
    assert wait_for(lambda: httpx.get(f"{server.url}/tasks", headers=removed).status_code == 401, 10)


def test_the_table_of_secrets_finds_them() -> None:
    """The control."""
    client: Any = Client("http://localhost", 1)
    text = client.secret(token(celery_gateway=FULL))
    assert client.found(f"GET /tasks?access_token={text}") and client.found(text.split(".")[2])
    assert client.found(SECRET) and not client.found("nothing")
