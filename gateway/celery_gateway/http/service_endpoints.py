"""Endpoints of the service itself: the dashboard, health checks, and metrics."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.dashboard import load
from celery_gateway.http.metrics import CONTENT_TYPE, Metrics
from celery_gateway.pipeline import Pipeline

_PAGE_HEADERS = {"X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"}


class ServiceEndpoints:
    """The endpoints, as ``routes``."""

    def __init__(self, access: AccessControl, pipeline: Pipeline) -> None:
        self._access = access
        self._pipeline = pipeline
        self._metrics = Metrics(pipeline.statistics)
        self._page, policy = load()
        self._page_headers = {"Content-Security-Policy": policy, **_PAGE_HEADERS}
        self.routes = [
            access.route("/", self.dashboard, "dashboard"),
            access.route("/healthz", self.healthz, "public"),
            access.route("/readyz", self.readyz, "public"),
            access.route("/metrics", self.metrics, "metrics"),
        ]

    async def dashboard(self, request: Request) -> Response:
        """Return the dashboard's page."""
        return HTMLResponse(self._page, headers=self._page_headers)

    async def healthz(self, request: Request) -> Response:
        """Return whether the gateway works: 503 means that a restart is required."""
        if self._pipeline.crashes:
            body = {"status": "failed", "reason": "; ".join(self._pipeline.crashes)}
            return JSONResponse(body, status_code=503)
        return JSONResponse({"status": "alive"})

    async def readyz(self, request: Request) -> Response:
        """Return whether the gateway consumes from a broker: 503 while it consumes from none."""
        statuses = self._pipeline.statuses
        # One broker of several is enough: else the outage of one would take every replica out of service.
        is_ready = any(status.is_consuming for status in statuses.values())
        body: dict[str, object] = {
            "status": "ready" if is_ready else "not ready",
            "reason": "; ".join(
                f"{cluster}: {status.reason}" if cluster else status.reason
                for cluster, status in statuses.items()
            ),
        }
        if None not in statuses:
            body["clusters"] = {str(cluster): status._asdict() for cluster, status in statuses.items()}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics as Prometheus text."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)
