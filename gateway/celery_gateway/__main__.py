"""``python -m gateway``: the same as ``celery-gateway``."""

from gateway.cli import main

main()
