"""A gateway whose tables begin again, because its log was deleted: it serves on, and shuts down in order."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from kombu import Connection

from tests.support.gateway_process import GatewayProcess
from tests.support.rabbitmq import wait_for
from tests.support.stream_client import NdjsonStream

SECONDS = 40


@pytest.fixture
def gateway(broker: str, folder: Path) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(broker, folder, options=("--log", "rabbitmq"))
    gateway.start()
    yield gateway
    gateway.stop()


def test_a_shutdown_after_a_restart_of_the_tables_ends_streams_in_order(
    gateway: GatewayProcess, broker: str
) -> None:
    with NdjsonStream(gateway.url) as before:
        with Connection(broker) as connection:
            connection.channel().queue_delete("celery-gateway.log")
        assert before.closed(SECONDS)
        assert before.until(lambda messages: messages[-1]["type"] == "gateway-close", SECONDS)
    assert httpx.get(f"{gateway.url}/healthz").status_code == 200
    assert wait_for(gateway.is_ready, SECONDS), gateway.tail()
    with NdjsonStream(gateway.url) as after:
        assert gateway.stop(SECONDS) == 0
        assert after.closed(SECONDS)
        (close,) = after.until(bool, SECONDS)
        assert (close["type"], close["reason"]) == ("gateway-close", "drain")
