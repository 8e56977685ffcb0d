"""Somebody's own application with the gateway in it, for the tests of the portable path."""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from gateway.asgi import Gateway
from gateway.settings import Settings

gateway = Gateway(Settings(broker=os.environ["TEST_BROKER"], keepalive_seconds=0.3, slow_seconds=2.0))


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("my own")


app = Starlette(routes=[Route("/", home), Mount("/celery", gateway)], lifespan=gateway.lifespan)
