"""Every error that the gateway raises on purpose.

GatewayError
├── BadRequest           a parameter is unknown or has a bad value: 400 with the parameter's name
├── SourceError          the broker URL cannot be used at all (an outage is retried, not raised)
│   └── TransportError   its scheme carries no events, or a package is missing
├── Evicted              the history or the table no longer holds it
├── OverLimit            the limits do not allow a request now: 503
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


class OverLimit(GatewayError):
    """The limits do not allow a request now; the client may retry later.

    Attributes:
        reason: one of ``celery_gateway.stream.limits.REASONS``.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
