"""Requests that have no response when the gateway shuts down: they get a 503."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from celery_gateway.asgi import Gateway
from celery_gateway.settings import Settings
from tests.support.gateway_process import GatewayProcess
from tests.support.portable_server import in_thread
from tests.support.rabbitmq import wait_for


class SilentBroker:
    """Accepts connections and sends nothing, so that `/queues` waits for 5 s."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[socket.socket] = []
        self.url = f"amqp://127.0.0.1:{self._listener.getsockname()[1]}//"

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            thread.join(10)
            for connection in self.connections:
                connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listener.accept()[0])


def shut_down_during_a_request(url: str, broker: SilentBroker, stop: Callable[[], object]) -> httpx.Response:
    """Return the response to a request for queues that is waiting when the server stops."""
    assert wait_for(lambda: len(broker.connections) == 1, 30), "that of the source"
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.get, f"{url}/queues", timeout=30)
        assert wait_for(lambda: len(broker.connections) == 2, 30), "that of the queues"
        stop()
        return waiting.result()


def check(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting-down")
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.unit
@pytest.mark.slow
def test_of_a_mounted_gateway() -> None:
    broker = SilentBroker()
    gateway = Gateway(Settings(broker=broker.url))
    app = Starlette(routes=[Mount("/celery", gateway)], lifespan=gateway.lifespan)
    with broker.running(), in_thread(app) as (server, url):
        check(
            shut_down_during_a_request(f"{url}/celery", broker, lambda: setattr(server, "should_exit", True))
        )


def test_of_a_gateway_process(folder: Path) -> None:
    broker = SilentBroker()
    gateway = GatewayProcess(broker.url, folder)
    with broker.running():
        gateway.launch()
        try:
            codes: list[int | None] = []
            check(shut_down_during_a_request(gateway.url, broker, lambda: codes.append(gateway.stop())))
            assert codes == [0], gateway.tail()
        finally:
            gateway.stop()
