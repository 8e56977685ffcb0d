"""The second part of ``make fuzz``: bad HTTP requests and WebSocket messages against a gateway.

    python -m benchmarks.fuzz_requests [--requests 20000] [--seed 0] [--corpus FOLDER]

Each connection sends one mutated input (``tests/support/bad_requests.py``, and the files of ``--corpus``) in
pieces, reads the response, and closes. The exit code is 1 if a response was a 500, the log has a traceback, a
connection or subscription is left, or the memory has grown.
"""

import argparse
import random
import re
import selectors
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.attacks import Meter, ask, until
from tests.support.bad_requests import mutated, requests
from tests.support.gateway_process import GatewayProcess

REQUESTS = 20_000
AT_ONCE = 20
SECONDS_PER_REQUEST = 0.25
"""How long an open response is read: a stream has no end."""
MAX_GROWN_BYTES = 32 << 20
MAX_HELD_SECONDS = 0.25


class Run(NamedTuple):
    """The responses to the requests, and the problems."""

    statuses: Counter[str]
    found: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="a folder of more inputs, one per file")
    arguments = parser.parse_args()
    corpus = (
        [path.read_bytes() for path in sorted(arguments.corpus.rglob("*")) if path.is_file()]
        if arguments.corpus
        else []
    )
    with tempfile.TemporaryDirectory() as folder:
        gateway = GatewayProcess("memory://localhost", Path(folder))
        gateway.start()
        try:
            run = fuzz(gateway, arguments.requests, arguments.seed, corpus)
        finally:
            gateway.stop()
    print(f"{arguments.requests:,} bad requests: {dict(run.statuses.most_common())}; {len(run.found)} faults")
    for line in run.found:
        print(f"  {line}")
    return 1 if run.found else 0


def fuzz(gateway: GatewayProcess, count: int, seed: int, corpus: Sequence[bytes] = ()) -> Run:
    """Send requests to a gateway. Return the responses, and the problems afterwards."""
    dice = random.Random(seed)
    statuses: Counter[str] = Counter()
    found: list[str] = []
    inputs = _inputs(dice, corpus)
    with Meter(gateway) as meter:
        for begin in range(0, count, AT_ONCE):
            sent = [next(inputs) for _ in range(min(AT_ONCE, count - begin))]
            for data, answer in zip(sent, _answers(gateway.port, dice, sent), strict=True):
                codes = [code.decode() for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
                statuses.update(codes or ["none"])
                if "500" in codes:
                    found.append(f"seed {seed}: {data[:300]!r} got the response {answer[:300]!r}")
            if sys.stderr.isatty():
                print(f"\r{begin + len(sent):,} of {count:,}", end="", file=sys.stderr)
    if "Traceback" in (log := gateway.log.read_text()):
        found.append(f"the log has a traceback:\n{log[-3_000:]}")
    if meter.held_seconds > MAX_HELD_SECONDS:
        found.append(f"another client waited for {meter.held_seconds:.3f} s of CPU time")
    if meter.grown_bytes > MAX_GROWN_BYTES:
        found.append(f"the memory grew by {meter.grown_bytes >> 20} MiB")
    if not until(lambda: _gauge(gateway, "subscriptions") == 0):
        found.append(f"{_gauge(gateway, 'subscriptions'):.0f} subscriptions are still open")
    return Run(statuses, found)


def _inputs(dice: random.Random, corpus: Sequence[bytes]) -> Iterator[bytes]:
    for data in requests(dice):
        yield mutated(dice, dice.choice(corpus)) if corpus and dice.random() < 0.5 else data


def _answers(port: int, dice: random.Random, inputs: Sequence[bytes]) -> list[bytes]:
    """Send each input on a connection of its own, in one to three pieces. Return the responses."""
    answers = [b""] * len(inputs)
    pieces = [_pieces(dice, data) for data in inputs]
    with selectors.DefaultSelector() as selector:
        for number in range(len(inputs)):
            client = socket.create_connection(("127.0.0.1", port), 10)
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ | selectors.EVENT_WRITE, number)
        ends_at = time.monotonic() + SECONDS_PER_REQUEST
        while selector.get_map() and time.monotonic() < ends_at:
            for key, events in selector.select(0.02):
                client, number = key.fileobj, key.data
                assert isinstance(client, socket.socket)
                try:
                    if events & selectors.EVENT_WRITE and pieces[number]:
                        client.send(pieces[number].pop(0))
                        if not pieces[number]:
                            selector.modify(client, selectors.EVENT_READ, number)
                    if events & selectors.EVENT_READ:
                        data = client.recv(1 << 16)
                        answers[number] += data
                        if not data:
                            raise ConnectionError("closed")
                except BlockingIOError:
                    pass
                except OSError:
                    selector.unregister(client)
                    client.close()
        for key in list(selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
    return answers


def _pieces(dice: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice((0, 0, 1, 2))))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _gauge(gateway: GatewayProcess, name: str) -> float:
    with suppress(OSError):
        text = ask(gateway.port, b"GET /metrics HTTP/1.0\r\n\r\n").decode()
        if match := re.search(rf"^celery_gateway_{name} (\S+)$", text, re.M):
            return float(match[1])
    return -1.0


if __name__ == "__main__":
    raise SystemExit(main())
