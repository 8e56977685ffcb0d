"""Endpoints of the service itself: health checks, and metrics."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from celery_gateway.http.access_control import AccessControl
from celery_gateway.http.errors import error_response
from celery_gateway.http.metrics import CONTENT_TYPE, Metrics
from celery_gateway.http.metrics_sum import PEERS, Peers
from celery_gateway.pipeline.pipeline import Pipeline


class ServiceEndpoints:
    """The endpoints, as ``routes``."""

    def __init__(self, access: AccessControl, pipeline: Pipeline) -> None:
        self._access = access
        self._pipeline = pipeline
        self._metrics = Metrics(pipeline.statistics)
        self.routes = [
            access.route("/healthz", self.healthz, "public"),
            access.route("/readyz", self.readyz, "public"),
            access.route("/metrics", self.metrics, "metrics"),
        ]

    async def healthz(self, request: Request) -> Response:
        """Return whether the gateway works: 503 means that a restart is required."""
        if crashes := self._pipeline.crashes:
            return self._health("failed", 503, {"reason": "; ".join(crashes)})
        return self._health("alive", 200, {})

    async def readyz(self, request: Request) -> Response:
        """Return whether the gateway consumes from a broker: 503 while it consumes from none."""
        statuses = self._pipeline.statuses
        # One broker of several is enough: else the outage of one would take every replica out of service.
        is_ready = any(status.is_consuming for status in statuses.values()) and not self._pipeline.crashes
        details: dict[str, object] = {
            "reason": "; ".join(
                f"{cluster}: {status.reason}" if cluster else status.reason
                for cluster, status in statuses.items()
            ),
        }
        if None not in statuses:
            details["clusters"] = {str(cluster): status._asdict() for cluster, status in statuses.items()}
        return self._health("ready" if is_ready else "not ready", 200 if is_ready else 503, details)

    def _health(self, status: str, status_code: int, details: dict[str, object]) -> Response:
        """Return the response of a health check: anyone may request it, also if there is authentication.

        Args:
            details: may have the names of brokers, so they are left out then.
        """
        return JSONResponse(
            {"status": status} | (details if self._access.is_open else {}), status_code=status_code
        )

    async def metrics(self, request: Request) -> Response:
        """Return the metrics as Prometheus text; those of all processes, if the gateway has several."""
        peers: Peers | None = request.scope.get("state", {}).get(PEERS)
        if peers is None:
            return Response(self._metrics.text(), media_type=CONTENT_TYPE)
        try:
            text = await self._metrics.text_of_all(peers)
        except TimeoutError:
            message = "the supervisor of the gateway's processes does not answer"
            return error_response(503, "no-supervisor", message)
        return Response(text, media_type=CONTENT_TYPE)
