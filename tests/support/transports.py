"""A stream over any of the three transports, as an iterator of messages."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import PortableServer

KINDS = ["sse", "ndjson", "websocket"]
Message = dict[str, Any]
Server = GatewayProcess | PortableServer
NOISE = frozenset({"gateway-bookmark", "gateway-status"})


def messages(
    server: Server,
    kind: str,
    query: dict[str, str] | None = None,
    *,
    skipped: frozenset[str] = NOISE,
    **more: str,
) -> Iterator[Message]:
    """Yield the messages of a stream until it ends, and then a WebSocket's close code.

    Closing the iterator cuts the connection.

    Args:
        query: the parameters of the request, with those in `more`.
        skipped: types of message that are left out.
    """
    for message in _messages(server, kind, (query or {}) | more):
        if message["type"] not in skipped:
            yield message


def _messages(server: Server, kind: str, query: dict[str, str]) -> Iterator[Message]:
    path = server.url.partition(f":{server.port}")[2]
    text = str(httpx.QueryParams(query))
    if kind == "websocket":
        with connect(f"ws://127.0.0.1:{server.port}{path}/ws?{text}", max_size=None) as websocket:
            try:
                while True:
                    yield json.loads(websocket.recv(timeout=30))
            except ConnectionClosed as closed:
                if closed.rcvd is not None:
                    yield {"type": "closed", "code": closed.rcvd.code, "reason": closed.rcvd.reason}
                return
            finally:
                websocket.socket.close()  # cut, without goodbye
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("GET", f"{path}/events?{text}&format={kind}")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        for line in response:
            if kind == "ndjson":
                yield json.loads(line)
            elif line.startswith(b"data: "):
                yield json.loads(line[6:])
