"""The types of Celery's task events, and the state that each one reports."""

STATE_OF_EVENT = {
    "task-sent": "PENDING",
    "task-received": "RECEIVED",
    "task-started": "STARTED",
    "task-retried": "RETRY",
    "task-cancelled": "CANCELLED",
    "task-rejected": "REJECTED",
    "task-succeeded": "SUCCESS",
    "task-failed": "FAILURE",
    "task-revoked": "REVOKED",
}
LOST = "LOST"
"""A state of the gateway, not of Celery: the worker process of the attempt is gone."""
