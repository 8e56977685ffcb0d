"""``python -m celery_gateway``: the same as ``celery-gateway``."""

from celery_gateway.cli import main

main()
