"""The embedded Celery cluster of ``celery-gateway demo``."""
