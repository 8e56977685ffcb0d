"""`/ws` of a real gateway with a real WebSocket client: under its own server and under hypercorn."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.conftest import StreamFactory
from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import PortableServer
from tests.support.publisher import Publisher, walk
from tests.support.rabbitmq import wait_for
from tests.support.transports import NOISE

Gateway = GatewayProcess | PortableServer
Connect = Callable[..., "Client"]


class Client:
    """A client that reads messages as JSON; `opened` is the first one."""

    def __init__(self, gateway: Gateway, query: str = "") -> None:
        url = gateway.url.replace("http", "ws", 1)
        self._open = ExitStack()
        self.connection: ClientConnection = self._open.enter_context(
            connect(f"{url}/ws{query}", max_size=None)
        )
        self.opened = self.read()

    def close(self) -> None:
        self._open.close()

    def read(self) -> dict[str, Any]:
        """Return the next message that is neither a keep-alive nor the gateway's status."""
        while True:
            text = self.connection.recv(timeout=10)
            assert isinstance(text, str), "messages are text"
            message: dict[str, Any] = json.loads(text)
            if message["type"] not in NOISE:
                return message

    def send(self, message: object) -> None:
        self.connection.send(message if isinstance(message, (str, bytes)) else json.dumps(message))


@pytest.fixture(scope="module", params=["direct", "portable"])
def gateway(request: pytest.FixtureRequest, broker: str, folder: Path) -> Iterator[Gateway]:
    server = (GatewayProcess if request.param == "direct" else PortableServer)(broker, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def websocket(gateway: Gateway) -> Iterator[Connect]:
    clients: list[Client] = []

    def make(query: str = "") -> Client:
        clients.append(Client(gateway, query))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def mark() -> str:
    return f"test.{uuid.uuid4().hex}"


def test_websocket_and_ndjson_have_the_same_objects(
    publisher: Publisher, websocket: Connect, stream: StreamFactory, mark: str
) -> None:
    client, ndjson = websocket(f"?name={mark}"), stream(name=mark)
    assert client.opened["type"] == "gateway-open"
    publisher.send(*[walk(mark) for _ in range(20)])
    events = ndjson.until(lambda seen: len(seen) == 60)
    assert [client.read() for _ in events] == events


@pytest.mark.parametrize("size", [100, 125, 126, 127, 60_000, 70_000, 300_000])
def test_messages_of_every_length(publisher: Publisher, websocket: Connect, mark: str, size: int) -> None:
    client = websocket(f"?type={mark}")
    publisher.send({"type": mark, "text": "é" * (size // 2)})
    assert client.read()["text"] == "é" * (size // 2)


def test_a_websocket_resumes(publisher: Publisher, websocket: Connect, mark: str) -> None:
    first = websocket(f"?name={mark}")
    publisher.send(*[walk(mark) for _ in range(10)])
    events = [first.read() for _ in range(30)]
    again = websocket(f"?name={mark}&last_event_id={events[11]['id']}")
    assert again.opened["resume"] == "resumed"
    assert [again.read() for _ in events[12:]] == events[12:]


def test_a_new_filter_applies_from_the_position_in_its_reply(
    publisher: Publisher, websocket: Connect, stream: StreamFactory, mark: str
) -> None:
    everything = stream(name=f"{mark}.*")
    client = websocket(f"?name={mark}.a")
    for _ in range(5):
        publisher.send(walk(f"{mark}.a"), walk(f"{mark}.b"))
    client.send(
        {"op": "filter", "any": [{"name": [f"{mark}.b"]}, {"name": [f"{mark}.c"], "type": ["task-failed"]}]}
    )
    for _ in range(5):
        publisher.send(walk(f"{mark}.a"), walk(f"{mark}.b"), walk(f"{mark}.c"))
    got: list[dict[str, Any]] = []
    while not got or got[-1]["type"] != "gateway-filter":  # which may be heard of before these or after
        got.append(client.read())
    for _ in range(5):
        publisher.send(walk(f"{mark}.a"), walk(f"{mark}.b"), walk(f"{mark}.c"))
    whole = everything.until(lambda seen: len(seen) == 5 * 2 * 3 + 10 * 3 * 3)
    while not got or got[-1]["id"] != [event for event in whole if event["name"] == f"{mark}.b"][-1]["id"]:
        got.append(client.read())
    (place,) = (at for at, message in enumerate(got) if message["type"] == "gateway-filter")

    def number(message: dict[str, Any]) -> int:
        return int(message["id"].rpartition("-")[2])

    holds_from = number(got[place])
    assert got[:place] == [e for e in whole if e["name"] == f"{mark}.a" and number(e) <= holds_from]
    assert got[place + 1 :] == [e for e in whole if e["name"] == f"{mark}.b" and number(e) > holds_from]


def test_ping(websocket: Connect) -> None:
    client = websocket("?type=nothing")
    client.send({"op": "ping"})
    assert client.read()["type"] == "gateway-pong"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        b"\x00\xff",
        {"op": "stop"},
        {"op": ["filter"]},
        {"op": "filter"},
        {"op": "filter", "any": {"name": ["a"]}},
        {"op": "filter", "any": ["name"]},
        {"op": "filter", "any": [{"nmae": ["a"]}]},
        {"op": "filter", "any": [{"name": 5}]},
        {"op": "filter", "any": [{"name": [5]}]},
        {"op": "filter", "any": [{"name": [""]}]},
        {"op": "filter", "any": [{}] * 101},
        {
            "op": "filter",
            "any": [{"uuid": [str(n) for n in range(600)]}, {"uuid": [str(n) for n in range(600)]}],
        },
    ],
)
def test_a_bad_message_gets_an_error_and_the_stream_continues(
    publisher: Publisher, websocket: Connect, mark: str, bad: object
) -> None:
    client = websocket(f"?name={mark}&type=task-started")
    client.send(bad)
    error = client.read()
    assert error["type"] == "gateway-error"
    assert error["message"] and error["code"] and error["parameter"]
    publisher.send(walk("another"), walk(mark))
    assert (client.read()["name"], client.opened["type"]) == (mark, "gateway-open")


def test_a_message_of_a_megabyte_ends_the_stream(gateway: Gateway, websocket: Connect) -> None:
    client = websocket("?type=nothing")
    if isinstance(gateway, PortableServer):  # whose server has read it before we see it
        client.send("x" * 1_000_000)
        assert client.read()["type"] == "gateway-error"
        return
    with pytest.raises(ConnectionClosed) as closed:
        client.send("x" * 1_000_000)
        client.read()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
    assert gateway.is_ready()


def test_a_bad_query_is_rejected_before_the_handshake(gateway: Gateway) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Client(gateway, "?nmae=x")
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body or b"")["error"]["parameter"] == "nmae"


def test_a_disconnected_websocket_is_removed(gateway: Gateway, websocket: Connect) -> None:
    def subscriptions() -> float:
        text = httpx.get(f"{gateway.url}/metrics").text
        return float(text.partition("\ncelery_gateway_subscriptions ")[2].partition("\n")[0])

    before = subscriptions()
    clients = [websocket(f"?name=x{number}") for number in range(10)]
    assert subscriptions() == before + 10
    for client in clients:
        client.close()
    assert wait_for(lambda: subscriptions() == before, 10)


def test_websockets_are_not_compressed(gateway: Gateway, websocket: Connect) -> None:
    if isinstance(gateway, PortableServer):
        pytest.skip("what other servers negotiate is theirs")
    assert websocket().connection.response.headers.get("Sec-WebSocket-Extensions") is None
