"""Response headers that protect browsers. Every response has them."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),  # WHATWG Fetch, section 3.6
    (b"referrer-policy", b"no-referrer"),  # a URL may hold a token
)


class SafeHeaders:
    """Add the headers to the responses of an application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_safely if scope["type"] == "http" else send)
