"""A FastAPI application with a lifespan of its own, and the gateway under /celery.

    pip install fastapi 'uvicorn[standard]' /path/to/celery-gateway
    CELERY_BROKER_URL=amqp://guest:guest@localhost:5672// uvicorn fastapi_app:app

Then open http://127.0.0.1:8000/, or: curl -N http://127.0.0.1:8000/celery/events
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from celery_gateway.asgi import Gateway
from celery_gateway.settings import Settings

gateway = Gateway(
    Settings(
        broker=os.environ.get("CELERY_BROKER_URL", "amqp://guest:guest@localhost:5672//"),
        # Where users reach the application. Requests for other hosts than this one, localhost and IP
        # addresses get 403.
        public_url=os.environ.get("PUBLIC_URL", ""),
    )
)

PAGE = """<!doctype html>
<title>Tasks</title>
<ul></ul>
<script>
  const events = new EventSource("celery/events?type=task-*&snapshot=1");
  events.onmessage = ({ data }) => {
    const { name, state } = JSON.parse(data);
    const item = document.createElement("li");
    item.textContent = `${name} ${state}`;
    document.querySelector("ul").append(item);
  };
</script>
"""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    print("the application's own start", flush=True)
    async with gateway.lifespan(app):  # it consumes from the broker within this block
        yield
    print("the application's own end", flush=True)


app = FastAPI(lifespan=lifespan)
app.mount("/celery", gateway)


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE
