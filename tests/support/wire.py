"""The wire as the oracle: what lay on `celeryev`, recorded with a raw kombu consumer and nothing of ours."""

import json
import time
from collections import Counter
from collections.abc import Callable
from threading import Condition, Event, Thread
from typing import Any

from kombu import Connection, Consumer, Exchange, Queue
from kombu.message import Message

EventFields = dict[str, Any]


class Recording:
    """Events in the order they came, appended by one thread and awaited by another."""

    def __init__(self) -> None:
        self._events: list[EventFields] = []
        self._changed = Condition()
        self._ended: str | None = None

    @property
    def events(self) -> list[EventFields]:
        with self._changed:
            return list(self._events)

    def append(self, event: EventFields) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def end(self, reason: str) -> None:
        """Nothing more will come: whoever waits fails now."""
        with self._changed:
            self._ended = reason
            self._changed.notify_all()

    def until(
        self, predicate: Callable[[list[EventFields]], object], timeout_seconds: float = 40
    ) -> list[EventFields]:
        """All events so far once the predicate holds for them, else AssertionError naming them."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not predicate(self._events):
                left = deadline - time.monotonic()
                if left <= 0 or self._ended is not None:
                    why = self._ended or f"nothing more within {timeout_seconds:g} s"
                    received = "\n".join(f"  {event}"[:300] for event in self._events) or "  nothing"
                    raise AssertionError(f"{why}; received:\n{received}")
                self._changed.wait(left)
            return list(self._events)

    def until_types(self, uuid: str, *types: str, timeout_seconds: float = 40) -> list[EventFields]:
        """The events of one task, once there are at least these; a type given twice has to come twice."""
        awaited = Counter(types)
        self.until(
            lambda events: awaited <= Counter(e["type"] for e in events if e.get("uuid") == uuid),
            timeout_seconds,
        )
        return self.of(uuid)

    def of(self, *uuids: str) -> list[EventFields]:
        return [event for event in self.events if event.get("uuid") in uuids]


class Wire(Recording):
    """Records every event of one vhost from `start()` on; lists (`task.multi`) are flattened."""

    def __init__(self, broker_url: str) -> None:
        super().__init__()
        self._connection = Connection(broker_url)
        self._stopping = Event()
        self._thread = Thread(target=self._run, daemon=True, name="wire")

    def start(self) -> None:
        """Returns once the queue is bound: whatever is published after that will be recorded."""
        exchange = Exchange("celeryev", type="topic", durable=True)
        queue = Queue(exchange=exchange, routing_key="#", exclusive=True, auto_delete=True, durable=False)
        Consumer(self._connection, [queue], on_message=self._record, no_ack=True, accept=["json"]).consume()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(5)
        self._connection.release()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._connection.drain_events(timeout=0.2)
                except TimeoutError:
                    continue
        except Exception as error:
            self.end(f"the raw consumer failed: {error!r}")

    def _record(self, message: Message) -> None:
        # json.loads, not kombu's decoder, which would give tagged values a Python type.
        body = json.loads(message.body)
        for event in body if isinstance(body, list) else [body]:
            self.append(event)
