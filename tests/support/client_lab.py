"""The lab of the JavaScript client's tests: real processes, and commands that break them.

`python -m tests.support.client_lab` starts a private RabbitMQ, a Celery worker, a gateway and, on a free port
of 127.0.0.1, a control server. When they are ready it prints one line, `{"url": the control server's}`. It
ends, with all it started, at the end of its standard input, or at SIGTERM.

Bodies and answers of the control server are JSON; a failed command answers 500 with what went wrong.

- A test reaches the gateway through doors, each a port of its own: `POST /doors {"tokens", "pages", "auth"}`
  -> `{"id", "url"}`; with `auth` it leads to another gateway, with authentication. Then
  `POST /doors/{id}/cut | hang-up | stall | resume | refuse`, and
  `POST /doors/{id}/answers {"statuses", "retry_after", "tokens"}`; `GET /doors/{id}` -> `{"connects", "open",
  "tokens"}`, and `DELETE` when done.
- Tasks: `POST /run {"kind", "args"}` -> `{"uuid", "root_id"}`, `POST /revoke {"uuid"}`.
- Events of a test's own making: `POST /publish {"bodies"}`, and numbered ones at a rate: `POST /load
  {"name", "count", "per_second", "batch", "padding", "is_task"}` -> `{"id"}`, `POST /load/{id}/stop`,
  `GET /load/{id}` -> `{"sent", "done"}`.
- Tokens of that gateway: `POST /tokens/sign {"seconds", "any", "may"}` -> `{"token"}` (a JSON Web Token);
  `POST /tokens/create {"name", "may"}` -> `{"token"}` (a static one), `POST /tokens/remove {"name"}`.
- Outages: `POST /gateway/restart {"kill"}`, `/broker/restart`, `/broker/cut`, `/workers/start` ->
  `{"hostname"}`, `/workers/kill {"hostname"}`.
- `GET /logs`; `GET /page/…`: the files of the folder `--pages`, here and at every door that has pages.

Children belong to the thread that started them (see `rabbitmq`), so commands that start one are done by the
main thread, one by one.
"""

import argparse
import asyncio
import json
import mimetypes
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import uvicorn
from celery import chain
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.support.access_file import AccessFile
from tests.support.celery_app import create_app
from tests.support.gateway_process import GatewayProcess
from tests.support.proxy import Proxy
from tests.support.publisher import Publisher
from tests.support.rabbitmq import RabbitMQ, free_port, wait_for
from tests.support.worker import Worker

ROOT_PATH = "/celery"
"""The gateway's sub-path; it answers without it, too."""
KEEPALIVE_SECONDS = 2
HISTORY_BYTES = 32 << 20
"""Small enough to be filled by a test, large enough for clients that are stopped for some seconds."""
HEAD_BYTES = 64 << 10
SUBPROTOCOL_PREFIX = "celery-gateway.bearer."
KEEP_ALIVE_SECONDS = 600
"""How long the control server keeps an idle connection: a client must not reuse one that is being closed."""


class Door(Proxy):
    """A network of its own between one test and the gateway, with the guard behind it, if there is one."""

    guard: "Guard | None" = None

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._carriers)


class Guard:
    """Reads the first request of each connection, and forwards it to a gateway or answers it.

    It answers preflights (CORS), `GET /page/…`, the next requests for which there are `statuses`, and, with
    401, those without any of the `tokens` (`None`: no token is required).
    """

    def __init__(self, gateway_port: int, tokens: list[str] | None, pages: Path | None) -> None:
        self.port = free_port()
        self.tokens = tokens
        self.statuses: list[int] = []
        self.retry_after: str | None = None
        self.seen: list[str | None] = []
        self._gateway_port = gateway_port
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=HEAD_BYTES)

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        answer = self._answer(head)
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            return
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._gateway_port)
        to_writer.write(head)
        directions = [
            asyncio.create_task(_carry(reader, to_writer)),
            asyncio.create_task(_carry(to_reader, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            to_writer.close()

    def _answer(self, head: bytes) -> bytes | None:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = request.split(" ")
        url = urlsplit(target)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if method == "OPTIONS":
            allowed = headers.get("access-control-request-headers", "*")
            return _response(204, {"Access-Control-Allow-Headers": allowed})
        if self._pages is not None and url.path.startswith("/page/"):
            file = self._pages / Path(url.path).name
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            return _response(200, {"Content-Type": kind}, file.read_bytes())
        token: str | None = headers.get("authorization", "").removeprefix("Bearer ") or None
        for subprotocol in headers.get("sec-websocket-protocol", "").split(","):
            if subprotocol.strip().startswith(SUBPROTOCOL_PREFIX):
                token = subprotocol.strip().removeprefix(SUBPROTOCOL_PREFIX)
        self.seen.append(token)
        if self.statuses:
            return _refusal(self.statuses.pop(0), self.retry_after)
        if self.tokens is not None and token not in self.tokens:
            return _refusal(401, None)
        return None


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(HEAD_BYTES):
            writer.write(data)
            await writer.drain()


def _refusal(status: int, retry_after: str | None) -> bytes:
    error = {"code": f"test_{status}", "message": f"refused with {status}", "parameter": None}
    headers = {"Content-Type": "application/json"} | ({"Retry-After": retry_after} if retry_after else {})
    return _response(status, headers, json.dumps({"error": error}).encode())


def _response(status: int, headers: dict[str, str], body: bytes = b"") -> bytes:
    headers |= {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
    headers |= {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {status} Test", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Load(Thread):
    """Publishes `count` events `task-tick` of one task, numbered from 0 as `n`, `batch` of them a message.

    With `is_task` a `task-received` comes first: the gateway knows the task's name, so scopes may allow it.
    """

    def __init__(
        self,
        url: str,
        name: str,
        count: int,
        per_second: float | None = None,
        batch: int = 1,
        padding: int = 0,
        is_task: bool = False,
    ) -> None:
        super().__init__(daemon=True, name=f"load {name}")
        self.sent = 0
        self.count = count
        self._url = url
        self._event = {"type": "task-tick", "name": name, "uuid": str(uuid4()), "hostname": "tick@host"}
        self._event |= {"padding": "x" * padding, "utcoffset": 0, "pid": 1}
        self._batch = batch
        self._is_task = is_task
        self._gap_seconds = batch / per_second if per_second else 0.0

    def run(self) -> None:
        publisher = Publisher(self._url)
        due = time.monotonic()
        try:
            if self._is_task:
                clock = {"clock": 0, "timestamp": time.time()}
                publisher.send(
                    self._event | {"type": "task-received", "root_id": self._event["uuid"]} | clock
                )
            while self.sent < self.count:
                numbers = range(self.sent, min(self.sent + self._batch, self.count))
                events = [self._event | {"n": n, "clock": n, "timestamp": time.time()} for n in numbers]
                publisher.send(events if self._batch > 1 else events[0])
                self.sent = numbers.stop
                due += self._gap_seconds
                time.sleep(max(0.0, due - time.monotonic()))
        finally:
            publisher.close()


class Lab:
    """All that runs. Methods that start a child are for the main thread."""

    def __init__(self, folder: Path, pages: Path | None) -> None:
        self.folder = folder
        self.pages = pages
        self.rabbitmq = RabbitMQ(folder / "rabbitmq")
        self.broker_proxy = Proxy(self.rabbitmq.port)
        self.doors: dict[str, Door] = {}
        self.loads: dict[str, Load] = {}
        self.numbers = count(1)
        results = folder / "results"
        results.mkdir()
        self.celery = create_app(self.rabbitmq.url, results)
        self.gateway = GatewayProcess(
            self.broker_proxy.url(self.rabbitmq.url),
            folder,
            options=(
                *("--allow-origin", "*", "--keepalive", str(KEEPALIVE_SECONDS), "--root-path", ROOT_PATH),
                *("--history-bytes", str(HISTORY_BYTES)),
            ),
        )
        self.access = AccessFile(folder)
        self._guarded: GatewayProcess | None = None
        self.workers: dict[str, Worker] = {}

    def start(self, ends: ExitStack) -> None:
        ends.callback(self.rabbitmq.stop)
        self.rabbitmq.start()
        ends.enter_context(self.broker_proxy)
        ends.callback(self.celery.close)
        ends.callback(self.gateway.stop, 3)
        ends.callback(self._stop_guarded)
        self.gateway.launch()
        ends.callback(self._kill_workers)
        self.start_worker("prefork")
        if not wait_for(self.gateway.is_ready, 20):
            raise RuntimeError(f"the gateway is not ready:\n{self.gateway.tail()}")

    def guarded_port(self) -> int:
        """Return the port of the gateway with authentication, which starts when it is first used."""
        if self._guarded is None:
            options = ("--auth", str(self.access.path), "--root-path", ROOT_PATH, "--allow-origin", "*")
            self._guarded = GatewayProcess(self.rabbitmq.url, self.folder, options=options)
            self._guarded.start()
        return self._guarded.port

    def _stop_guarded(self) -> None:
        if self._guarded is not None:
            self._guarded.stop(3)

    def start_worker(self, pool: str) -> str:
        # One that is to be killed takes no tasks from the other.
        options = () if pool == "prefork" else ("-Q", f"nobody-{next(self.numbers)}")
        results = self.folder / "results"
        worker = Worker(self.rabbitmq.url, self.folder, results=results, pool=pool, options=options)
        self.workers[worker.hostname] = worker
        worker.start()
        return worker.hostname

    def kill_worker(self, hostname: str) -> None:
        self.workers.pop(hostname).kill()

    def restart_gateway(self, kill: bool) -> None:
        if kill:
            os.kill(self.gateway.pid, signal.SIGKILL)
        self.gateway.stop()
        self.gateway.start()

    def restart_broker(self) -> None:
        self.rabbitmq.stop_app()
        self.rabbitmq.start_app()
        names = list(self.workers)
        if not wait_for(lambda: self._answer_pings(names), 30):
            raise RuntimeError(f"of {names} not all came back:\n{self.logs()}")

    def _answer_pings(self, names: list[str]) -> bool:
        with suppress(*self.celery.connection_for_write().connection_errors):
            return len(self.celery.control.ping(names, timeout=0.25, limit=len(names))) == len(names)
        return False

    def run(self, kind: str, args: list[Any]) -> dict[str, str]:
        """Start a workflow, or a task by its name."""
        if kind != "chain":
            uuid = str(self.celery.send_task(kind, args).id)
            return {"uuid": uuid, "root_id": uuid}
        add = self.celery.signature("canvas.add", args=(1, 2))
        last = chain(add, *(self.celery.signature("canvas.add", args=(number,)) for number in args))()
        first = last
        while first.parent is not None:
            first = first.parent
        return {"uuid": str(last.id), "root_id": str(first.id)}

    def publish(self, bodies: list[Any]) -> None:
        publisher = Publisher(self.rabbitmq.url)
        try:
            publisher.send(*bodies)
        finally:
            publisher.close()

    def logs(self) -> str:
        processes = {"gateway": self.gateway, "rabbitmq": self.rabbitmq} | self.workers
        if self._guarded is not None:
            processes["gateway with authentication"] = self._guarded
        return "\n\n".join(f"{name}:\n{process.tail(30)}" for name, process in processes.items())

    def _kill_workers(self) -> None:
        for worker in self.workers.values():
            worker.kill()


Job = Callable[[], Any]


class Control:
    """The control server, in a thread of its own; commands that start a child are jobs of the main thread."""

    def __init__(self, lab: Lab) -> None:
        self.jobs: SimpleQueue[tuple[Job, Future[Any]]] = SimpleQueue()
        self._lab = lab
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        cors = Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
        routes = [
            Route("/doors", self._new_door, methods=["POST"]),
            Route("/doors/{id}", self._door, methods=["GET", "DELETE"]),
            Route("/doors/{id}/{verb}", self._change_door, methods=["POST"]),
            Route("/load", self._new_load, methods=["POST"]),
            Route("/load/{id}", self._load),
            Route("/load/{id}/stop", self._load, methods=["POST"]),
            Route("/logs", self._logs),
            Route("/page/{name}", self._page),
            Route("/{noun}", self._command, methods=["POST"]),
            Route("/{noun}/{verb}", self._command, methods=["POST"]),
        ]
        handlers = {Exception: self._failed}
        app = Starlette(routes=routes, middleware=[cors], exception_handlers=handlers)
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="critical", lifespan="off", timeout_keep_alive=KEEP_ALIVE_SECONDS)
        )
        self._thread = Thread(target=self._server.run, args=([self._socket],), daemon=True, name="control")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)

    def work(self) -> None:
        """Run jobs until the process ends."""
        while True:
            job, future = self.jobs.get()
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)

    async def _failed(self, request: Request, error: Exception) -> Response:
        return PlainTextResponse(
            f"{type(error).__name__}: {error}", 500, {"Access-Control-Allow-Origin": "*"}
        )

    async def _by_main(self, job: Job) -> Any:
        future: Future[Any] = Future()
        self.jobs.put((job, future))
        return await asyncio.wrap_future(future)

    async def _command(self, request: Request) -> Response:
        lab, body = self._lab, await _body(request)
        match request.url.path:
            case "/run":
                return JSONResponse(await asyncio.to_thread(lab.run, body["kind"], body.get("args", [])))
            case "/revoke":
                await asyncio.to_thread(lab.celery.control.revoke, body["uuid"], terminate=True)
            case "/publish":
                await asyncio.to_thread(lab.publish, body["bodies"])
            case "/tokens/sign":
                return JSONResponse({"token": lab.access.sign(**body)})
            case "/tokens/create":
                return JSONResponse({"token": lab.access.create(**body)})
            case "/tokens/remove":
                lab.access.remove(body["name"])
            case "/gateway/restart":
                await self._by_main(lambda: lab.restart_gateway(body.get("kill", False)))
            case "/broker/restart":
                await self._by_main(lab.restart_broker)
            case "/broker/cut":
                await asyncio.to_thread(lab.broker_proxy.cut)
            case "/workers/start":
                return JSONResponse({"hostname": await self._by_main(lambda: lab.start_worker("solo"))})
            case "/workers/kill":
                await self._by_main(lambda: lab.kill_worker(body["hostname"]))
            case path:
                raise LookupError(path)
        return JSONResponse({})

    async def _new_door(self, request: Request) -> Response:
        lab, body = self._lab, await _body(request)
        accepted, has_pages = body.get("tokens"), body.get("pages", False)
        port = await self._by_main(lab.guarded_port) if body.get("auth") else lab.gateway.port
        guard = None
        if has_pages or "tokens" in body:
            guard = Guard(port, accepted, lab.pages if has_pages else None)
            await guard.start()
        door = Door(port if guard is None else guard.port)
        door.guard = guard
        await asyncio.to_thread(door.__enter__)
        id = str(next(lab.numbers))
        lab.doors[id] = door
        return JSONResponse({"id": id, "url": f"http://127.0.0.1:{door.port}"})

    async def _door(self, request: Request) -> Response:
        id = request.path_params["id"]
        if request.method == "DELETE":
            await asyncio.to_thread(self._close_door, id)
            return JSONResponse({})
        door = self._lab.doors[id]
        seen = [] if door.guard is None else door.guard.seen
        return JSONResponse({"connects": door.connects, "open": door.open, "tokens": seen})

    def _close_door(self, id: str) -> None:
        door = self._lab.doors.pop(id)
        door.__exit__()
        if door.guard is not None:
            door.guard.stop()

    async def _change_door(self, request: Request) -> Response:
        door, body = self._lab.doors[request.path_params["id"]], await _body(request)
        verbs = {
            "cut": door.cut,
            "hang-up": door.hang_up,
            "stall": door.stall,
            "resume": door.resume,
            "refuse": door.refuse,
        }
        verb = request.path_params["verb"]
        if verb == "answers":
            assert door.guard is not None, "this door has no guard"
            door.guard.statuses = list(body.get("statuses", []))
            door.guard.retry_after = body.get("retry_after")
            door.guard.tokens = body.get("tokens", door.guard.tokens)
        else:
            await asyncio.to_thread(verbs[verb])
        return JSONResponse({})

    async def _new_load(self, request: Request) -> Response:
        load = Load(self._lab.rabbitmq.url, **await _body(request))
        id = str(next(self._lab.numbers))
        self._lab.loads[id] = load
        load.start()
        return JSONResponse({"id": id})

    async def _load(self, request: Request) -> Response:
        load = self._lab.loads[request.path_params["id"]]
        if request.method == "POST":
            load.count = 0
        return JSONResponse({"sent": load.sent, "done": not load.is_alive()})

    async def _logs(self, request: Request) -> Response:
        return PlainTextResponse(await asyncio.to_thread(self._lab.logs))

    async def _page(self, request: Request) -> Response:
        assert self._lab.pages is not None, "no --pages"
        return FileResponse(self._lab.pages / request.path_params["name"])


async def _body(request: Request) -> dict[str, Any]:
    text = await request.body()
    body: dict[str, Any] = json.loads(text) if text else {}
    return body


def _end_with_stdin() -> None:
    """End the lab when the process that started it ends, or closes the standard input."""
    while os.read(0, 1):  # not sys.stdin, whose lock would be held while the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="client_lab")
    parser.add_argument("--pages", type=Path, help="a folder whose files are served as /page/…")
    pages = parser.parse_args().pages
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us, and closes our stdin
    Thread(target=_end_with_stdin, daemon=True, name="stdin").start()
    with TemporaryDirectory(prefix="client-lab-") as folder, ExitStack() as ends:
        lab = Lab(Path(folder), pages)
        lab.start(ends)
        control = Control(lab)
        ends.callback(control.stop)
        control.start()
        print(json.dumps({"url": control.url}), flush=True)
        control.work()


if __name__ == "__main__":
    main()
