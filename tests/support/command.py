"""A command line in this process, which is quicker than a process of its own."""

import io
import logging
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest

from celery_gateway.cli import main

QUIET = {key: value for key, value in os.environ.items() if not key.startswith(("GATEWAY_", "CELERY_"))}
"""The environment without settings."""
_LOGGERS = [logging.getLogger(name) for name in ("celery_gateway", "aio_pika", "aiormq", "kombu", "redis")]


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `celery-gateway` in this process; for calls that end before they serve anything."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGINT)
    levels = [logger.level for logger in _LOGGERS]
    try:
        with (
            redirect_stdout(out),
            redirect_stderr(err),
            mock.patch.dict(os.environ, QUIET | environment, clear=True),
            mock.patch.object(sys, "argv", ["celery-gateway", *arguments]),
            pytest.raises(SystemExit) as exited,
        ):
            main()
    finally:
        signal.signal(signal.SIGINT, handler)
        for logger, level in zip(_LOGGERS, levels, strict=True):
            logger.setLevel(level)
    code = exited.value.code
    assert code is None or isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code or 0, out.getvalue(), err.getvalue())
