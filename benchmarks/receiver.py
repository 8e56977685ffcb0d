"""Celery's own consumer of events, for comparison: its EventReceiver, which updates its State.

    python -m benchmarks.receiver BROKER_URL EVENTS

Prints ``{"ready": …}`` when it consumes, and ``{"events": …}`` when its State has processed that many. Then
it continues until its standard input closes.
"""

import json
import os
import sys
import threading
from typing import Any

from celery import Celery
from celery.events import EventReceiver
from celery.events.state import State


class Receiver(EventReceiver):  # type: ignore[misc]
    """An EventReceiver that prints a line when it consumes."""

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        send(ready=True)


def send(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    broker_url, expected = sys.argv[1], int(sys.argv[2])
    threading.Thread(target=end_with_input, daemon=True).start()
    state = State()

    def on_event(event: dict[str, Any]) -> None:
        state.event(event)
        if state.event_count == expected:
            send(events=expected)

    app = Celery(broker=broker_url)
    with app.connection_for_read() as connection:
        Receiver(connection, handlers={"*": on_event}, app=app).capture(
            limit=None, timeout=None, wakeup=False
        )


if __name__ == "__main__":
    main()
