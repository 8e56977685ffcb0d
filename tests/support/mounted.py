"""Somebody's own application with the gateway in it, for the tests of the portable path.

TEST_SETTINGS has further settings, as JSON; TEST_MIDDLEWARE what is around all of it: "gzip", "base".
"""

import json
import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from celery_gateway.asgi import Gateway
from celery_gateway.settings import Settings

more = json.loads(os.environ.get("TEST_SETTINGS", "{}"))
gateway = Gateway(
    Settings(broker=os.environ["TEST_BROKER"], **{"keepalive_seconds": 0.3, "slow_seconds": 2.0} | more)
)


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


MIDDLEWARE = {"gzip": Middleware(GZipMiddleware), "base": Middleware(PassOn)}


async def home(request: Request) -> PlainTextResponse:
    return PlainTextResponse("my own")


app = Starlette(
    routes=[Route("/", home), Mount("/celery", gateway)],
    middleware=[MIDDLEWARE[name] for name in os.environ.get("TEST_MIDDLEWARE", "").split()],
    lifespan=gateway.lifespan,
)
