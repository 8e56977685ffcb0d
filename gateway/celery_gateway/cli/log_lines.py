"""The log of the commands that serve, on standard error."""

import logging


def configure_log(process: int | None = None) -> logging.Logger:
    """Configure the log; return the logger of the package.

    Args:
        process: the number of this process, if the gateway has several.
    """
    source = "" if process is None else f"process {process}: "
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s %(levelname)s {source}%(message)s")
    # Not a logger of the module: Celery imports it before the app, and an app that configures logging
    # (such as Django's) disables all loggers that exist by then.
    log = logging.getLogger("celery_gateway")
    log.setLevel(logging.INFO)
    for library in ("aio_pika", "aiormq"):  # the source logs the same errors itself, with the fix
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return log
