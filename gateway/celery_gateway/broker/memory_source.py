"""The source for kombu's in-memory broker, whose publishers are in the same process: for demo and tests."""

from collections.abc import Sequence
from typing import Any

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue

from celery_gateway.broker.amqp_queues import event_queue_name
from celery_gateway.broker.thread_source import Session, ThreadSource
from celery_gateway.broker.urls import BY_URL, Access
from celery_gateway.events.message import Message

POLL_SECONDS = 0.5
_OPTIONS = {"polling_interval": 0.05}  # seconds; kombu's default is 1


class MemorySource(ThreadSource):
    """Consumes ``memory://`` through kombu; arguments as of ``AMQPSource``."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        exchange: str = "celeryev",
        name: str | None = None,
        access: Access = BY_URL,
    ) -> None:
        super().__init__(urls, self._consume_memory, exchange=exchange, name=name, access=access)
        self._options = {**_OPTIONS, **access.transport_options}

    def _consume_memory(self, url: str, session: Session) -> None:
        def on_message(message: Any) -> None:
            compression = message.headers.get("compression")
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            session.message(
                Message(
                    body,
                    message.content_type,
                    message.content_encoding,
                    None if compression is None else str(compression),
                )
            )

        with Connection(url, transport_options=self._options) as connection:
            queue = Queue(
                event_queue_name(self.access.queue_prefix),
                exchange=get_exchange(connection, name=self.exchange),
                routing_key="#",
                auto_delete=True,
                durable=False,
            )
            with Consumer(connection, queues=[queue], no_ack=True, on_message=on_message):
                session.begin("this process")
                while not session.is_stopping():
                    try:
                        connection.drain_events(timeout=POLL_SECONDS)
                    except TimeoutError:
                        continue
