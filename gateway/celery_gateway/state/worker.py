"""The record of a worker: what its own events say of it. Pure."""

from typing import Literal

import msgspec

from gateway.event import Event, is_number

MAX_TEXT_CHARS = 255

_NUMBERS = ("active", "processed", "pid", "clock")
_TEXTS = ("sw_ident", "sw_ver", "sw_sys")
WorkerStatus = Literal["online", "stopping", "silent", "offline", "unknown"]


class Worker(msgspec.Struct):
    """What is known of a worker. Times are epoch seconds, UTC, on the worker's clock.

    Attributes:
        hostname: its node name.
        alive: it is online or stopping, or was when the gateway last heard its broker.
        status: see ``workers``.
        since: when that began, on the gateway's clock.
        heartbeats: it sends some; if not, its silence means nothing.
        freq: seconds from heartbeat to heartbeat.
        active: tasks that it runs.
        processed: tasks that it has begun since its start.
        loadavg: of its machine, over 1, 5 and 15 minutes.
        timestamp: of its youngest worker event.
        online: when it last came up, if that was seen.
        offline: when it last said that it stops.
        cluster: the broker's name; left out where it has none.
    """

    hostname: str
    alive: bool = True
    status: WorkerStatus = "online"
    since: float | None = None
    heartbeats: bool = False
    freq: float | None = None
    active: int | None = None
    processed: int | None = None
    loadavg: list[float] | None = None
    pid: int | None = None
    clock: int | None = None
    timestamp: float | None = None
    online: float | None = None
    offline: float | None = None
    sw_ident: str | None = None
    sw_ver: str | None = None
    sw_sys: str | None = None
    cluster: str | msgspec.UnsetType = msgspec.UNSET


WORKER_FIELDS = Worker.__struct_fields__


def describe(worker: Worker, event: Event) -> None:
    """Take over what a worker event says; what it leaves out stays as it was."""
    if worker.pid != event.get("pid"):
        worker.active = worker.processed = worker.loadavg = None  # another process
    worker.heartbeats = True
    for field in _NUMBERS:
        if type(value := event.get(field)) is int and is_number(value):
            setattr(worker, field, value)
    for field in _TEXTS:
        if type(value := event.get(field)) is str:
            setattr(worker, field, value[:MAX_TEXT_CHARS])
    freq, loadavg = event.get("freq"), event.get("loadavg")
    # An answer to the `heartbeat` command has a freq that is not the worker's (celery/worker/control.py).
    if is_number(freq) and freq > 0 and ("active" in event or worker.freq is None):
        worker.freq = float(freq)
    if type(loadavg) is list and all(map(is_number, loadavg[:3])):
        worker.loadavg = [float(load) for load in loadavg[:3]]
