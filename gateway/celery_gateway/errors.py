"""Every error that the gateway raises on purpose.

GatewayError
├── BadRequest        a client asked for what cannot be given: answered with 400 and the parameter's name
├── SourceError       the broker URL cannot be used at all (a passing outage is retried, not raised)
└── Unasked           workers could not be asked: tried again later
"""


class GatewayError(Exception):
    """Base of the tree; its text is fit to be shown to a person."""


class BadRequest(GatewayError):
    """A query parameter is unknown or its value is bad.

    Args:
        message: what was wrong with which value, and what to do.
        code: a stable word for programs, such as ``unknown-parameter``.
        parameter: the parameter's name as the client sent it.
        allowed: the names or values that would have been accepted, when they can be listed.
    """

    def __init__(self, message: str, *, code: str, parameter: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.parameter = parameter
        self.allowed = allowed


class Unasked(GatewayError):
    """The workers could not be asked: the broker is away, refuses, or is blocked by an alarm, as it says."""


class SourceError(GatewayError):
    """The broker URL is malformed or names a transport that is not installed."""
