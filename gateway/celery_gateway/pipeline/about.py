"""What ``gateway-status`` says about the gateway itself. Pure but for the time of its start."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from celery_gateway import __version__

STARTED = time.time()
"""When this process has loaded the gateway, in epoch seconds."""


class About(NamedTuple):
    """The gateway that serves a stream.

    Attributes:
        version: of the gateway.
        started: when its process began, in epoch seconds.
        control: it sends commands to workers (``--control``).
        actions: which actions of clients it allows (``--allow``).
    """

    version: str = __version__
    started: float = round(STARTED, 3)
    control: bool = False
    actions: Sequence[str] = ()
