"""The simplest way to send Celery's events over SSE, for comparison: a queue and an encoding per client.

python -m benchmarks.naive BROKER_URL PORT
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aio_pika
import uvicorn
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

broker_url, port = sys.argv[1], int(sys.argv[2])
clients: set[asyncio.Queue[object]] = set()


async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
    body = json.loads(message.body)
    for event in body if isinstance(body, list) else [body]:
        for queue in clients:
            queue.put_nowait(event)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with await aio_pika.connect_robust(broker_url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("celeryev", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        await queue.consume(on_message, no_ack=True)
        yield


async def events(request: Request) -> EventSourceResponse:
    async def stream() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[object] = asyncio.Queue()
        clients.add(queue)
        try:
            while True:
                yield {"data": json.dumps(await queue.get())}
        finally:
            clients.discard(queue)

    return EventSourceResponse(stream())


app = Starlette(routes=[Route("/events", events)], lifespan=lifespan)
uvicorn.run(app, port=port, log_level="error", backlog=4096)
