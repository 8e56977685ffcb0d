"""Serving under a sub-path, behind a proxy that strips it from the path or not."""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Set ``root_path`` of each request, and add it to a path without it.

    ASGI defines ``path`` to include ``root_path`` (ASGI HTTP spec, connection scope).

    Args:
        root_path: the sub-path, such as ``/celery``.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path: str = scope["path"]
            if path != self._root_path and not path.startswith(f"{self._root_path}/"):
                path = self._root_path + path
            scope = {**scope, "root_path": self._root_path, "path": path}
        await self._app(scope, receive, send)
