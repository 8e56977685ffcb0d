"""Failures, grouped by their signature; in each group the failures of each name, so that scopes apply.

At most ``MAX_GROUPS`` groups and ``MAX_BYTES`` bytes are kept; the group without a failure for longest is
evicted first. A group has the ``MAX_NAMES`` names that have failed last; the failures of others are counted
together. Times are epoch seconds, on the gateway's clock. Pure.
"""

from collections import OrderedDict
from collections.abc import Iterator

from celery_gateway.state.failure_signature import Signature
from celery_gateway.state.text_size import text_bytes

MAX_GROUPS = 1_000
MAX_BYTES = 10_000_000
MAX_NAMES = 200
MAX_TEXT_CHARS = 255
_GROUP_BYTES = 700
_NAME_BYTES = 500

NameKey = tuple[str | None, str | None]
"""A name and its cluster; ``None`` where there is none."""


class NameFailures:
    """The failures of one name in a group.

    Attributes:
        count: how many.
        first, last: when the first and the last one arrived.
        message, uuid, worker, cluster: of the last one.
    """

    __slots__ = ("cluster", "count", "first", "last", "message", "uuid", "worker")

    def __init__(self, time: float) -> None:
        self.count = 0
        self.first = self.last = time
        self.message = self.uuid = ""
        self.worker: str | None = None
        self.cluster: str | None = None


class FailureGroup:
    """The failures with one signature.

    Attributes:
        key, exception, frame: see ``Signature``.
        last: when the last one arrived.
        names: by name and cluster, the one that failed last at the end.
        others: those of names that have made room; ``None`` if there are none.
        size_bytes: its size, by estimate.
    """

    __slots__ = ("key", "exception", "frame", "last", "names", "others", "size_bytes")

    def __init__(self, signature: Signature) -> None:
        self.key, self.exception, _, self.frame = signature
        self.last = 0.0
        self.names: dict[NameKey, NameFailures] = {}
        self.others: NameFailures | None = None
        self.size_bytes = _GROUP_BYTES + text_bytes(self.exception) + text_bytes(self.frame)


class FailureGroups:
    """All groups.

    Attributes:
        size_bytes: their size, by estimate.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[str, FailureGroup] = OrderedDict()  # by key, the newest failure last
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._groups)

    def newest(self) -> Iterator[FailureGroup]:
        """Iterate over the groups, the one with the newest failure first. They must not change meanwhile."""
        return reversed(self._groups.values())

    def add(self, signature: Signature, key: NameKey, uuid: str, worker: str | None, time: float) -> None:
        """Add a failure.

        Args:
            key: the name of its task, and its cluster.
            time: when it arrived.
        """
        group = self._groups.get(signature.key)
        if group is None:
            group = self._groups[signature.key] = FailureGroup(signature)
            self.size_bytes += group.size_bytes
        self._groups.move_to_end(signature.key)
        group.last = max(group.last, time)
        grown = 0
        of_name = group.names.pop(key, None)
        if of_name is None:
            of_name, grown = NameFailures(time), _NAME_BYTES
            if len(group.names) >= MAX_NAMES:
                grown -= _make_room(group)
        group.names[key] = of_name
        grown -= _texts_bytes(of_name)
        of_name.count += 1
        of_name.last = max(of_name.last, time)
        of_name.message, of_name.uuid = signature.message, uuid[:MAX_TEXT_CHARS]
        of_name.worker = None if worker is None else worker[:MAX_TEXT_CHARS]
        of_name.cluster = key[1]
        grown += _texts_bytes(of_name)
        group.size_bytes += grown
        self.size_bytes += grown
        while len(self._groups) > MAX_GROUPS or (self.size_bytes > MAX_BYTES and len(self._groups) > 1):
            self.size_bytes -= self._groups.popitem(last=False)[1].size_bytes


def _make_room(group: FailureGroup) -> int:
    """Count what has not failed for longest with the others; return the freed bytes."""
    oldest, others = group.names.pop(next(iter(group.names))), group.others
    group.others = oldest
    if others is None:
        return 0
    oldest.count += others.count
    oldest.first, oldest.last = min(oldest.first, others.first), max(oldest.last, others.last)
    return _NAME_BYTES + _texts_bytes(others)


def _texts_bytes(failures: NameFailures) -> int:
    return text_bytes(failures.message) + text_bytes(failures.uuid) + text_bytes(failures.worker)
