"""Readers of a stream in Python, each in a thread of its own.

Usage: ``read.py READERS TYPE``. READERS is JSON: names and the gateways that they ask, such as
``{"requests": "http://127.0.0.1:8555"}``; TYPE is the type of the events that they ask for.

Each reader parses the data of every message as JSON, whatever the name of the message. What it got is printed
as JSON lines (see ``report``). Libraries that do not reconnect are called in a loop with the id of the last
message, as their users do it.
"""

import asyncio
import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from importlib.metadata import distribution
from threading import Thread
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

import aiohttp
import httpx
import requests
import sseclient as sseclient_py
import websocket
import websockets
from httpx_sse import connect_sse

RETRY_SECONDS = 0.2
TIMEOUT_SECONDS = 10
READERS: dict[str, Callable[["Reading"], None]] = {}
BY_ITSELF = {"sseclient"}
"""Reconnects without help."""


class Reading:
    """What a reader is asked to read, and what it has read."""

    def __init__(self, name: str, url: str, type: str) -> None:
        self.name = name
        self.url = url
        self.type = type
        self.last_id: str | None = None

    def query(self, *, resumes: bool = False, **more: str) -> dict[str, str]:
        """The parameters; with the last id in them where a reader sends no headers."""
        last_id = {"last_event_id": self.last_id} if resumes and self.last_id else {}
        return {"type": self.type} | last_id | more

    @property
    def headers(self) -> dict[str, str]:
        return {"Last-Event-ID": self.last_id} if self.last_id else {}

    def take(self, text: str | bytes) -> None:
        """Read one message."""
        message = json.loads(text)
        self.last_id = message["id"]
        report(self.name, message=summary(message, len(text)))

    def websocket_url(self) -> str:
        return f"{self.url.replace('http', 'ws', 1)}/ws?{urlencode(self.query(resumes=True))}"


def summary(message: dict[str, Any], length: int) -> dict[str, Any]:
    """What a test asks for of a message, without its long texts."""
    names = ("id", "n", "note", "resume", "reason", "truncated", "type")
    return {name: message[name] for name in names if name in message} | {"length": length}


def report(reader: str, **fields: Any) -> None:
    # One write: threads share the output.
    sys.stdout.write(json.dumps({"reader": reader, **fields}) + "\n")
    sys.stdout.flush()


def reader(name: str) -> Callable[[Callable[[Reading], None]], Callable[[Reading], None]]:
    def register(read: Callable[[Reading], None]) -> Callable[[Reading], None]:
        READERS[name] = read
        return read

    return register


@reader("httpx-sse")
def read_httpx_sse(reading: Reading) -> None:
    with (
        httpx.Client(timeout=TIMEOUT_SECONDS) as client,
        connect_sse(
            client, "GET", f"{reading.url}/events", params=reading.query(), headers=reading.headers
        ) as source,
    ):
        for event in source.iter_sse():
            reading.take(event.data)


@reader("httpx")
def read_httpx(reading: Reading) -> None:
    query = reading.query(resumes=True, format="ndjson")
    with httpx.stream("GET", f"{reading.url}/events", params=query, timeout=TIMEOUT_SECONDS) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            reading.take(line)


@reader("sseclient")
def read_sseclient(reading: Reading) -> None:
    query = reading.query(max_event_bytes="100000")  # it takes time in proportion to the square of the length
    for event in _sseclient().SSEClient(f"{reading.url}/events", params=query, timeout=TIMEOUT_SECONDS):
        reading.take(event.data)


def _sseclient() -> Any:
    """Return the module of sseclient. That of sseclient-py has the same name and is imported in its place."""
    path = distribution("sseclient").locate_file("sseclient.py")
    spec = importlib.util.spec_from_file_location("sseclient_module", str(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.print = lambda *values: None  # type: ignore[attr-defined]  # it prints each error
    return module


@reader("sseclient-py")
def read_sseclient_py(reading: Reading) -> None:
    response = requests.get(
        f"{reading.url}/events",
        params=reading.query(),
        headers={"Accept": "text/event-stream", **reading.headers},
        stream=True,
        timeout=TIMEOUT_SECONDS,
    )
    with response:
        response.raise_for_status()
        for event in sseclient_py.SSEClient(response).events():
            reading.take(event.data)


@reader("requests")
def read_requests(reading: Reading) -> None:
    query = reading.query(resumes=True, format="ndjson")
    with requests.get(
        f"{reading.url}/events", params=query, stream=True, timeout=TIMEOUT_SECONDS
    ) as response:
        response.raise_for_status()
        for line in response.iter_lines(decode_unicode=True):
            if line:
                reading.take(line)


@reader("urllib")
def read_urllib(reading: Reading) -> None:
    request = Request(f"{reading.url}/events?{urlencode(reading.query())}", headers=reading.headers)
    with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        for line in response:
            if line.startswith(b"data:"):
                reading.take(line.removeprefix(b"data:"))


@reader("http.client, HTTP/1.0")
def read_http_1_0(reading: Reading) -> None:
    """As ab, old proxies and scripts ask."""
    connection = HTTPConnection(urlsplit(reading.url).netloc, timeout=TIMEOUT_SECONDS)
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
    try:
        connection.request("GET", f"/events?{urlencode(reading.query(resumes=True, format='ndjson'))}")
        response = connection.getresponse()
        if response.status != 200:
            raise HTTPException(response.status)
        for line in response:
            reading.take(line)
    finally:
        connection.close()


@reader("aiohttp")
def read_aiohttp(reading: Reading) -> None:
    """Lines, which aiohttp limits in length."""

    async def read() -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=TIMEOUT_SECONDS)
        query = reading.query(resumes=True, format="ndjson")
        async with (
            aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session,
            session.get(f"{reading.url}/events", params=query) as response,
        ):
            async for line in response.content:
                reading.take(line)

    asyncio.run(read())


@reader("asyncio streams, 64 KiB lines")
def read_asyncio(reading: Reading) -> None:
    """``StreamReader.readline`` with its own limit, which Go's ``bufio.Scanner`` has, too: 64 KiB a line."""

    async def read() -> None:
        address = urlsplit(reading.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            query = reading.query(resumes=True, format="ndjson", max_event_bytes="60000")
            path = f"/events?{urlencode(query)}"
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {address.netloc}\r\n\r\n".encode())
            status = await reader.readline()
            if b" 200 " not in status:
                raise HTTPException(status)
            while (await reader.readline()).strip():
                pass
            while line := await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS):
                reading.take(line)
        finally:
            writer.close()

    asyncio.run(read())


@reader("websockets")
def read_websockets(reading: Reading) -> None:
    """With its limits as they are: 1 MiB a message."""

    async def read() -> None:
        async with websockets.connect(reading.websocket_url()) as connection:
            async for message in connection:
                reading.take(message)

    asyncio.run(read())


@reader("websocket-client")
def read_websocket_client(reading: Reading) -> None:
    connection = websocket.create_connection(reading.websocket_url(), timeout=TIMEOUT_SECONDS)
    try:
        while message := connection.recv():
            reading.take(message)
    finally:
        connection.close()


def run(reading: Reading) -> None:
    """Read for ever. A reader that cannot parse a message, or cannot go on, stops and reports why."""
    while True:
        try:
            READERS[reading.name](reading)
            lost: object = "the stream ended"
        except (
            *(OSError, HTTPException, ValueError),
            *(httpx.TransportError, httpx.HTTPStatusError, requests.RequestException, aiohttp.ClientError),
            *(websockets.WebSocketException, websocket.WebSocketException),
        ) as error:
            lost = f"{type(error).__name__}: {error}"[:300]
            if isinstance(error, json.JSONDecodeError) or reading.name in BY_ITSELF:
                report(reading.name, error=lost)
                return
        except BaseException:
            report(reading.name, error=traceback.format_exc())
            raise
        report(reading.name, lost=lost)
        time.sleep(RETRY_SECONDS)


def main() -> None:
    urls, type = sys.argv[1:]
    threads = [
        Thread(target=run, args=(Reading(name, url, type),), name=name)
        for name, url in json.loads(urls).items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
