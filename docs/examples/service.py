"""A service on the stream, with httpx: told of each task that fails, across lost connections.

python service.py [http://localhost:8555]
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx

STALE_SECONDS = 45  # the gateway says something every 15 s
FATAL = (400, 401, 403, 404)


def messages(url: str, **query: str) -> Iterator[dict[str, Any]]:
    """Each message once, over as many connections as it takes; the next is asked for when one is handled."""
    failures = 0
    with httpx.Client(timeout=httpx.Timeout(10, read=STALE_SECONDS)) as client:
        while True:
            retry_ms = None
            try:
                with client.stream("GET", f"{url}/events", params={"format": "ndjson", **query}) as response:
                    if response.status_code in FATAL:
                        sys.exit(response.read().decode())
                    rest = b""
                    for chunk in response.raise_for_status().iter_bytes():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for message in map(json.loads, lines):
                            yield message
                            query["last_event_id"] = message["id"]  # from here on, if the connection is lost
                            retry_ms = message.get("retry_ms")  # gateway-close says when to come back
                            failures = 0
            except httpx.HTTPError as error:
                print(error, file=sys.stderr)
            backoff_seconds = random.uniform(0, min(30, 0.5 * 2**failures))
            time.sleep(backoff_seconds if retry_ms is None else retry_ms / 1000)
            failures += 1


def main() -> None:
    default = os.environ.get("GATEWAY_URL", "http://localhost:8555")
    url = (sys.argv[1] if len(sys.argv) > 1 else default).rstrip("/")
    for message in messages(url, type="task-failed"):
        match message["type"]:
            case "task-failed":
                print("failed", message["name"], message["uuid"], message["exception"], flush=True)
            case "gateway-open":
                print("connected", message["resume"], flush=True)
            case "gateway-gap":
                print("missed", message["lost"] or "some", message["reason"], flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    with suppress(KeyboardInterrupt):
        main()
