"""A Celery app whose whole configuration is in its environment, for workers and gateways that share it.

`TESTS_SETTINGS` is a JSON object of Celery's settings. With `TESTS_DICTCONFIG` the app configures logging as
Django does, which switches off the loggers that are there already.
"""

import json
import logging.config
import os
import sys
from typing import Any

from celery import Celery
from celery.signals import worker_ready


def create_app(settings: dict[str, Any]) -> Celery:
    app = Celery("configured", set_as_current=False)
    app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, **settings)
    return app


app = create_app(json.loads(os.environ.get("TESTS_SETTINGS", "{}")))

if os.environ.get("TESTS_DICTCONFIG"):
    logging.config.dictConfig({"version": 1})


@app.task(name="configured.add")
def add(x: int, y: int) -> int:
    return x + y


@worker_ready.connect
def tell_modules(**_: Any) -> None:
    print("modules: " + " ".join(sorted(sys.modules)) + " (all)", flush=True)
