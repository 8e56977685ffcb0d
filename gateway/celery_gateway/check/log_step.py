"""The steps of errors of a shared log."""

from celery_gateway.check.step import Step, found
from celery_gateway.errors import SourceError
from celery_gateway.log.engine import LogError


def log_failed(name: str, error: LogError) -> Step:
    """Return the step that an error of the log has ended."""
    what, remedy = _split(str(error), ". ")
    is_permission = type(error.__cause__).__name__ in ("NoPermissionError", "ChannelAccessRefused")
    finding = "permission-refused" if is_permission else "log-unusable"
    return found(name, finding, what, remedy)


def refused(error: SourceError) -> Step:
    """Return the step of a setting that does not fit the broker, or cannot be read."""
    return found("log", "log-unusable", *_split(str(error), ": "))


def _split(text: str, separator: str) -> tuple[str, str]:
    """Return what is wrong, and what to do."""
    what, _, remedy = text.partition(separator)
    if not remedy:
        what, _, remedy = text.rpartition(": ")
    if not what:
        return text, "Look at the log of the server of this time."
    return what, remedy[:1].upper() + remedy[1:]
