"""Every error that the gateway raises on purpose.

GatewayError
├── BadRequest           a parameter is unknown or has a bad value: 400 with the parameter's name
├── SourceError          the broker URL cannot be used at all (an outage is retried, not raised)
│   └── TransportError   its scheme carries no events, or a package is missing
├── RecordingError       a file is not a recording, or cannot be read or written
├── Evicted              the history or the table no longer holds it
├── OverLimit            the limits do not allow a request now: 503
│   └── QuotaExceeded    the quota of the principal does not allow it now: 429
├── InvalidToken         there is no token, or it is not valid: 401
├── Forbidden            the token is valid, but does not allow the request: 403
├── LogError             the shared log cannot be used now: 503 (``log.engine``)
└── WorkerControlError   a round of remote control failed; it is retried later
"""


class GatewayError(Exception):
    """Base of the tree; its text is written for users."""


class BadRequest(GatewayError):
    """A parameter is unknown or its value is bad.

    Args:
        message: what failed, the value, what is allowed, what to do.
        code: a stable word for programs, such as ``unknown-parameter``.
        parameter: the parameter's name, as the client sent it.
        allowed: the accepted names or values, if they can be listed.
    """

    def __init__(self, message: str, *, code: str, parameter: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.parameter = parameter
        self.allowed = allowed


class Evicted(GatewayError):
    """The history or the table no longer holds what was requested: it was full."""


class WorkerControlError(GatewayError):
    """A round of remote control failed: the broker is unreachable, refuses it, or is blocked by an alarm."""


class SourceError(GatewayError):
    """The broker URL is malformed or names a transport that is not installed."""


class TransportError(SourceError):
    """The broker URL's scheme names a transport that carries no events, or whose package is not installed."""


class RecordingError(GatewayError):
    """A file is not a recording, has a newer format, or cannot be read or written."""


class OverLimit(GatewayError):
    """The limits do not allow a request now; the client may retry later.

    Attributes:
        reason: one of ``celery_gateway.stream.limits.REASONS``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class QuotaExceeded(OverLimit):
    """The quota of a principal does not allow a request now.

    Attributes:
        reason: one of ``celery_gateway.access.quota.QUOTA_DEFAULTS``.
        retry_seconds: when the client should try again, at the earliest.
        limit: the value of the quota.
        principal: the name of the principal, for the log.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        retry_seconds: float = 1.0,
        *,
        limit: float = 0.0,
        principal: str = "",
    ) -> None:
        super().__init__(reason, message)
        self.retry_seconds = retry_seconds
        self.limit = limit
        self.principal = principal


class InvalidToken(GatewayError):
    """A request has no token, or one that is malformed, unknown, expired or not for this gateway.

    Its text never contains the token. ``is_missing``: there is no token at all (RFC 6750, section 3.1).
    """

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        super().__init__(message)
        self.is_missing = is_missing


class Forbidden(GatewayError):
    """A token is valid, but its scope does not allow the request.

    Attributes:
        parameter: the parameter of the request that is not allowed; ``None`` if it is the whole request.
    """

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter
