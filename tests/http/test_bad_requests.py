"""Thousands of bad requests (``make fuzz`` has more): none gets 500, and none leaves anything behind."""

from collections.abc import Iterator

import pytest

from benchmarks.fuzz_requests import fuzz
from tests.support.gateway_process import GatewayProcess

REQUESTS = 400


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess("memory://localhost", tmp_path_factory.mktemp("bad-requests"))
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.mark.parametrize("seed", [1])
def test_bad_requests_are_answered_or_closed(gateway: GatewayProcess, seed: int) -> None:
    run = fuzz(gateway, REQUESTS, seed)
    assert not run.found, "\n".join(run.found)
    for status, part in (("400", 0.3), ("101", 0.05), ("200", 0.03), ("404", 0.01), ("426", 0.005)):
        assert run.statuses[status] > part * REQUESTS, f"too few of the requests come so far: {run.statuses}"
