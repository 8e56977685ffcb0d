"""Celery Gateway: stream Celery's events live to browsers, services and curl."""

__version__ = "0.1.0"
