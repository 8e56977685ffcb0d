"""The embedded Celery cluster behind `make demo`; import `gateway.demo.cluster` to run it."""
