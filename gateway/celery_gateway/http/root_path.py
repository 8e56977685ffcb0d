"""Serving under a sub-path, behind a proxy that strips it and one that does not."""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Tells the application where it is mounted, whether or not the path still begins with it.

    ASGI wants ``path`` with the prefix and ``root_path`` equal to it (ASGI HTTP spec, connection scope).
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
