"""uvicorn's configuration, with what all connections of a server share."""

from typing import Any

import uvicorn

from celery_gateway.http.guard import ServerLimits
from celery_gateway.stream.limits import Limits


class Config(uvicorn.Config):
    """uvicorn's configuration, ``server_limits`` and ``hsts_seconds``.

    Args:
        hsts_seconds: see ``headers.with_safe_headers``.
        options: those of ``uvicorn.Config``.
    """

    def __init__(
        self, app: Any, server_limits: ServerLimits, *, hsts_seconds: int = 0, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self.server_limits = server_limits
        self.hsts_seconds = hsts_seconds


def server_limits(config: uvicorn.Config) -> ServerLimits:
    """Return the limits of a configuration; for one of uvicorn's own, the limits of a single connection."""
    found: ServerLimits | None = getattr(config, "server_limits", None)
    return found or ServerLimits(Limits(), max_connections=2, slow_seconds=60.0)


def hsts_seconds(config: uvicorn.Config) -> int:
    """Return ``hsts_seconds`` of a configuration; 0 for one of uvicorn's own."""
    found: int = getattr(config, "hsts_seconds", 0)
    return found
