"""What a gateway knows of its shared log."""

from collections.abc import Mapping
from typing import NamedTuple

from celery_gateway.log.engine import Place
from celery_gateway.log.peers import Peer
from celery_gateway.stream.log_entries import LogEntriesStatistics


class LogStatistics(NamedTuple):
    """What a gateway knows of its log; ``claims`` and ``entries`` only grow.

    ``position``: of the last entry that was read. ``unread``: how many entries the leader has processed and
    not read back. ``goal``: the position to reach before the gateway is ready. ``silent_seconds``: since the
    last batch was written. ``older``: what streams read that are not in memory. ``peers``: gateways that do
    not lead.
    """

    place: Place
    name: str
    leader: str
    is_leading: bool
    is_warm: bool
    reason: str
    position: int
    goal: int
    unread: int
    at: float
    claims: int
    written_bytes: int
    silent_seconds: float
    older: LogEntriesStatistics
    peers: Mapping[str, Peer]
