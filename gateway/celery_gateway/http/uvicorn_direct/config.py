"""uvicorn's configuration, with the limits that all connections of a server share."""

from typing import Any

import uvicorn

from celery_gateway.http.guard import ServerLimits
from celery_gateway.stream.limits import Limits


class Config(uvicorn.Config):
    """uvicorn's configuration and ``server_limits``.

    Args:
        options: those of ``uvicorn.Config``.
    """

    def __init__(self, app: Any, server_limits: ServerLimits, **options: Any) -> None:
        super().__init__(app, **options)
        self.server_limits = server_limits


def server_limits(config: uvicorn.Config) -> ServerLimits:
    """Return the limits of a configuration; for one of uvicorn's own, the limits of a single connection."""
    found: ServerLimits | None = getattr(config, "server_limits", None)
    return found or ServerLimits(Limits(), max_connections=2, slow_seconds=60.0)
