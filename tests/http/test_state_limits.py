"""Limits on requests for state: fair shares, disconnected clients, memory, deadlines, step sizes."""

import asyncio
import json
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request

from celery_gateway.errors import OverLimit
from celery_gateway.http import fair_share
from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.fair_share import MAX_QUEUED, FairShare, TurnQueue, while_connected
from celery_gateway.http.json_response import MAX_PIECE_BYTES, JSONBuilder
from celery_gateway.http.metrics import Metrics
from celery_gateway.http.state_endpoints import StateEndpoints
from celery_gateway.http.state_responses import CHILDREN_PER_STEP
from celery_gateway.http.state_work import StateWork
from celery_gateway.http.task_selection import RECORDS_PER_STEP
from celery_gateway.http.uvicorn_direct.http_connection import DirectHTTP
from celery_gateway.pipeline.pipeline import PipelineStatistics
from celery_gateway.stream.limits import Limits
from tests.support.cpu_time import scaled
from tests.support.state_gateway import StateGateway, content, fetch, heartbeat, known, served, step

STRANGER = "127.0.0.2"


# ------------------------------------------------------------------------------------------ turns


async def work(turns: TurnQueue, client: str, slices: int) -> int:
    """Take some turns; return the number of turns of all clients by the end."""
    async with FairShare(turns, client) as share:
        for _ in range(slices - 1):
            await share.pause()
    return turns.granted


async def test_a_client_with_many_requests_gets_half_of_the_turns() -> None:
    turns = TurnQueue()
    herd = [asyncio.create_task(work(turns, "many", 20)) for _ in range(100)]
    await asyncio.sleep(0)
    before = turns.granted
    assert await work(turns, "one", 20) - before <= 2 * 20 + 1
    assert max(await asyncio.gather(*herd)) == 100 * 20 + 20, "each had its turns"


async def test_requests_of_one_client_take_turns_in_order() -> None:
    turns = TurnQueue()
    order: list[int] = []

    async def each(number: int) -> None:
        async with FairShare(turns, "same") as share:
            for _ in range(3):
                order.append(number)
                await share.pause()

    await asyncio.gather(*(each(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4] * 3


async def test_the_turn_of_a_cancelled_request_is_passed_on() -> None:
    for cancel_at in range(6):
        turns = TurnQueue()
        async with asyncio.timeout(30):
            first = asyncio.create_task(work(turns, "a", 3))
            others = [asyncio.create_task(work(turns, client, 3)) for client in "ab" for _ in range(3)]
            for _ in range(cancel_at):
                await asyncio.sleep(0)
            for task in (first, others[1], others[3]):
                task.cancel()
            for task in (others[0], others[2], others[4], others[5]):
                await task
            await work(turns, "c", 1)
        assert not turns.queued("a") and not turns.queued("b")


async def test_too_many_queued_requests_of_one_client_are_refused() -> None:
    turns = TurnQueue()
    async with FairShare(turns, "x"):
        waiting = [asyncio.create_task(work(turns, "many", 1)) for _ in range(MAX_QUEUED)]
        await asyncio.sleep(0)
        with pytest.raises(OverLimit, match=str(MAX_QUEUED)):
            await work(turns, "many", 1)
        other = asyncio.create_task(work(turns, "other", 1))
    await asyncio.gather(*waiting, other)


# ------------------------------------------------------------------------------- disconnected clients


async def test_work_is_cancelled_only_when_the_client_disconnects() -> None:
    gone = asyncio.Event()
    messages = iter([{"type": "http.request"}])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await gone.wait()
        return {"type": "http.disconnect"}

    async with while_connected(receive):
        await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError):  # of the work itself
        async with while_connected(receive):
            raise TimeoutError
    asyncio.get_running_loop().call_later(0.01, gone.set)
    with pytest.raises(ClientDisconnect):
        async with while_connected(receive), asyncio.timeout(30):
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("path", "http"),
    [
        ("/workflows/r", DirectHTTP),
        ("/tasks?name=nothing*", DirectHTTP),
        ("/tasks?limit=1000", DirectHTTP),
        ("/workers", DirectHTTP),
        ("/workflows/r", "h11"),
    ],
)
async def test_requests_of_disconnected_clients_take_little_cpu_time(path: str, http: Any) -> None:
    gateway = StateGateway()
    fill(gateway, 20_000 if "nothing" in path else 2_000)  # of which nothing is encoded
    gateway.put(*(heartbeat(f"w{n}@host") for n in range(500)))
    async with served(gateway, http=http) as port:
        await fetch(port, path)
        before = time.process_time()
        for _ in range(5):
            await fetch(port, path)
        cost = (time.process_time() - before) / 5
        before = time.process_time()
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = content(await fetch(port, path))
        cpu_seconds = time.process_time() - before
    assert answer["id"]
    # A connection of which nothing is asked takes 1 ms in this process, which also makes them.
    assert cpu_seconds < 20 * cost + scaled(0.3), f"one takes {cost:.3f} s"
    assert gateway.pipeline.limits.memory.used == 0


# ------------------------------------------------------------------------------------------ memory


def fill(gateway: StateGateway, count: int, root_id: str = "r", text: str = "(1,)") -> None:
    for start in range(0, count, 24):
        gateway.put(
            *(known(f"{root_id}{n}", root_id, args=text) for n in range(start, min(start + 24, count)))
        )


def unread(port: int, path: str, address: str = "127.0.0.1") -> socket.socket:
    """Return a client that sends a request and does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((address, 0))
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    client.setblocking(False)
    return client


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def stranger(port: int, path: str) -> bytes:
    """Return the response to a client of another address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(STRANGER, 0))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_unread_responses_stay_within_the_memory_of_their_client() -> None:
    gateway = StateGateway(memory_bytes=16 << 20)
    memory, refused = gateway.pipeline.limits.memory, gateway.pipeline.limits.refused
    fill(gateway, 100, text="x" * 30_000)
    gateway.put(known("big"))
    for start in range(0, 4_000, 100):
        gateway.put(*(known(f"{n}" + "c" * 240, parent_id="big") for n in range(start, start + 100)))
    gateway.put({"type": "note", "text": "x" * 2_000_000})
    event = f"/events/{gateway.pipeline.hub.id.decode()}"
    async with served(gateway, send_buffer_bytes=32 << 10) as port:
        for path in ("/workflows/r", "/tasks?root_id=r&limit=1000", "/tasks/big", event, "/tasks?limit=1000"):
            before = refused["memory"]
            clients = [unread(port, path) for _ in range(20)]
            try:
                await until(lambda before=before: refused["memory"] > before + 5)  # type: ignore[misc]
                peak = memory.used
                answer = await stranger(port, path)
                assert answer.startswith(b"HTTP/1.1 200 "), path
            finally:
                for client in clients:
                    client.close()
            assert 4 << 20 < peak <= 8 << 20, "one client takes as much as it leaves"
            await until(lambda: memory.used == 0)


async def test_over_limit_is_a_503_with_retry_after_and_releases_memory() -> None:
    gateway = StateGateway(memory_bytes=1 << 20)
    fill(gateway, 100, text="x" * 30_000)
    error = await gateway.request("/workflows/r")
    assert (error.status_code, error.json()["error"]["code"]) == (503, "limit")
    assert int(error.headers["retry-after"]) > 0
    assert "--client-memory" in error.json()["error"]["message"]
    assert gateway.pipeline.limits.refused["memory"] == 1
    assert (await gateway.request("/workflows/r?fields=state")).status_code == 200
    assert (await gateway.request("/tasks/r1")).status_code == 200
    assert gateway.pipeline.limits.memory.used == 0


async def test_the_charge_of_a_workflow_covers_its_memory() -> None:
    """While it is read, and at its end."""
    gateway = StateGateway()
    fill(gateway, 4_000)
    lookups = StateEndpoints(AccessControl(gateway.pipeline), StateWork(gateway.pipeline.limits, 60))
    memory = gateway.pipeline.limits.memory
    peaks: list[tuple[int, int]] = []

    async def watch() -> None:
        while True:
            peaks.append((memory.used, tracemalloc.get_traced_memory()[0]))
            await asyncio.sleep(0)

    async with asking(lookups) as ask:
        await ask("/workflows/r")  # what is made once
        tracemalloc.start()
        watching = asyncio.create_task(watch())
        try:
            response = await ask("/workflows/r")
        finally:
            watching.cancel()
            tracemalloc.stop()
    assert len(response.content) > 2_000_000
    charged, held = (max(values) for values in zip(*peaks, strict=True))
    # The client holds the response a second time, in this process.
    assert held < 1.3 * charged + 2 * len(response.content), (charged, held)
    assert memory.used == 0


# --------------------------------------------------------------------------------------- deadlines


async def test_unread_responses_end_after_the_slow_timeout() -> None:
    gateway = StateGateway(slow_seconds=0.2)
    fill(gateway, 200, text="x" * 30_000)
    async with served(gateway, send_buffer_bytes=32 << 10) as port:
        clients = [unread(port, "/workflows/r") for _ in range(4)]
        await until(lambda: gateway.pipeline.limits.memory.used > 20_000_000)
        await until(lambda: gateway.pipeline.limits.memory.used == 0, 3)
        for client in clients:
            client.close()
    assert gateway.pipeline.limits.refused["slow-response"] == 4


async def test_a_response_that_is_read_too_slowly_ends() -> None:
    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        await asyncio.sleep(0.03)
        sent += 1

    async def receive() -> Any:
        await asyncio.Event().wait()

    limits = Limits()
    builder = JSONBuilder(limits, "client", slow_seconds=0.5)
    builder.add_whole(b"x" * 100 * MAX_PIECE_BYTES)  # reading takes 3 s, and may take 2.5 s
    scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(TimeoutError):
        await builder.response(Request(scope), etag='"x"')(scope, receive, send)
    assert 3 < sent < 100
    assert limits.memory.used == 0


# ------------------------------------------------------------------------------- steps are bounded


@asynccontextmanager
async def asking(lookups: StateEndpoints) -> AsyncIterator[Callable[[str], Awaitable[httpx.Response]]]:
    transport = httpx.ASGITransport(app=Starlette(routes=lookups.routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:

        async def ask(path: str) -> httpx.Response:
            response = await client.get(path)
            assert response.status_code == 200
            return response

        yield ask


async def test_large_responses_are_made_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With slices of zero length, each step takes a turn."""
    monkeypatch.setattr(fair_share, "SLICE_SECONDS", 0.0)
    count = 4_000
    gateway = StateGateway()
    gateway.put(known("r"))
    for start in range(0, count, 100):
        gateway.put(*(known(f"t{n}", "r", parent_id="r") for n in range(start, start + 100)))
    gateway.put(*(heartbeat(f"w{n}@host") for n in range(1_000)))
    lookups = StateEndpoints(AccessControl(gateway.pipeline), StateWork(gateway.pipeline.limits, 60))
    for path, steps in {
        "/workflows/r": 2 * count // RECORDS_PER_STEP,
        "/workflows/r?fields=state": count // RECORDS_PER_STEP,
        "/tasks/r": count // CHILDREN_PER_STEP,
        "/tasks/r?fields=children": count // CHILDREN_PER_STEP,
        "/tasks?uuid=r": count // CHILDREN_PER_STEP,
        "/tasks?limit=1000": 1_000,
        "/tasks?name=nothing*": count // RECORDS_PER_STEP,
        "/tasks?root_id=r&state=LOST": count // RECORDS_PER_STEP,
        "/workers": 1_000,
        "/workers?hostname=w1*": 1_000,
        "/workers?fields=alive": 1_000,
    }.items():
        async with asking(lookups) as ask:
            before = lookups._work._turns.granted
            await ask(path)
            assert lookups._work._turns.granted - before >= steps, path


async def test_metrics_are_cached() -> None:
    made = 0
    gateway = StateGateway()

    def statistics() -> PipelineStatistics:
        nonlocal made
        made += 1
        return gateway.pipeline.statistics()

    metrics = Metrics(statistics)
    first = metrics.text()
    for _ in range(1_000):
        assert metrics.text()
    assert made < 200
    gateway.put(known("a"))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(30):
        while metrics.text() == first:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_if_none_match_with_many_etags() -> None:
    gateway = StateGateway()
    gateway.put(known("a"))
    etag = (await gateway.request("/tasks/a")).headers["etag"]
    many = ",".join(f'"{n:024x}"' for n in range(2_000))
    assert (await gateway.request("/tasks/a", if_none_match=f"{many}, {etag}")).status_code == 304
    assert (await gateway.request("/tasks/a", if_none_match=many)).status_code == 200
    assert (await gateway.request("/tasks/a", if_none_match=etag.strip('"'))).status_code == 200


async def test_fields_of_a_large_event() -> None:
    gateway = StateGateway()
    texts = {f"field{n}": ["é" * 2_000, {"a": n}] for n in range(50)}
    gateway.put({"type": "note", "hostname": "w@h", "timestamp": 1.0, **texts})
    id = gateway.pipeline.hub.id.decode()
    whole = (await gateway.request(f"/events/{id}")).json()
    picked = await gateway.request(f"/events/{id}?fields=field1,field49,nothing")
    assert picked.json() == {field: whole[field] for field in ("id", "type", "field1", "field49")}
    assert picked.headers["etag"]
    assert json.loads(picked.content)["field1"] == texts["field1"]
    assert (await gateway.request(f"/events/{id}?fields=none")).json() == {"id": id, "type": "note"}


async def test_a_workflow_and_a_task_are_consistent_while_children_change() -> None:
    gateway = StateGateway(max_tasks=3_000)
    fill(gateway, 2_000)
    gateway.put(known("p", "r"))
    running = True

    async def go_on() -> None:
        number = 0
        while running:
            number += 1
            gateway.put(known(f"n{number}", "r", parent_id="p"), step("started", f"r{number % 2_000}"))
            await asyncio.sleep(0)

    going = asyncio.create_task(go_on())
    try:
        for _ in range(3):
            tree = await gateway.get("/workflows/r")
            assert tree["total"] == sum(tree["counts"].values())
            children = (await gateway.get("/tasks/p"))["children"]
            numbers = [int(child[1:]) for child in children]
            assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True
    finally:
        running = False
        with suppress(asyncio.CancelledError):
            await going
