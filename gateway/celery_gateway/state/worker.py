"""The record of a worker, from its own events. Pure."""

from typing import Literal

import msgspec

from celery_gateway.events.event import FILTER_FIELDS, ORIGIN_FIELDS, Event, Keys, is_number

MAX_TEXT_CHARS = 255

_NUMBERS = ("active", "processed", "pid", "clock")
_TEXTS = ("sw_ident", "sw_ver", "sw_sys")
WorkerStatus = Literal["online", "stopping", "silent", "offline", "unknown"]


class Worker(msgspec.Struct):
    """A worker as its events have reported it. Times are epoch seconds, UTC, on the worker's clock.

    Attributes:
        hostname: its node name.
        alive: it is online or stopping; if its broker is disconnected: or was before.
        status: see ``worker_status``.
        since: when it got this status, on the gateway's clock.
        heartbeats: it sends some; if not, its silence has no meaning.
        sends_task_events: see ``task_event_evidence``; of the process that came up last.
        freq: seconds from heartbeat to heartbeat.
        active: how many tasks it runs.
        processed: how many tasks it has started since its start.
        loadavg: of its machine, over 1, 5 and 15 minutes.
        timestamp: the time of its last worker event.
        online: the time of its last ``worker-online``.
        offline: the time of its last ``worker-offline``.
        cluster: the broker's name; left out if it has none.
    """

    hostname: str
    alive: bool = True
    status: WorkerStatus = "online"
    since: float | None = None
    heartbeats: bool = False
    sends_task_events: bool | None = None
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
    """Update a record from a worker event; fields that the event does not have stay as they are."""
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


def worker_keys(hostname: str, cluster: object) -> Keys:
    """Return the values of a worker that filters and scopes compare."""
    values = {"hostname": hostname, "cluster": cluster if type(cluster) is str else None}
    return (*[values.get(field) for field in FILTER_FIELDS], *(None,) * len(ORIGIN_FIELDS))
