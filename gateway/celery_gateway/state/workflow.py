"""A workflow: the tasks of one root as a tree, with counts, progress and the critical path.

The tasks are encoded one by one as they are added (see ``scan``), and the tree is put together from the
encoded tasks. Both go in small steps, without recursion: a root may have 50,000 tasks, side by side or in a
chain.

- A task is among its parent's ``children``. One whose parent is not among the tasks (it has none, or the
  parent is evicted) is a root of the tree.
- Trees deeper than ``MAX_DEPTH`` levels are split: deeper tasks appear as further roots in ``tasks``, with
  their ``parent_id``. JSON parsers fail at some hundreds of levels (Python, jq); a task takes two.
- Children, and roots, are in the order in which they became known.
- ``total``, and ``known``, is how many tasks are known. ``sent_events``: ``task-sent`` of each of them has
  arrived; otherwise more tasks may wait in a queue.
- ``progress`` is 0..1: a task that is ready counts 1, another one its own progress (0 if that is hidden).
- ``critical_path`` leads from a root to the task that has been running for longest, or, if none runs, to the
  one that ended last. ``seconds`` are a task's own, from sent (or its first event) to its end, or, while it
  runs, to its last event.

Pure.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator

import msgspec

from celery_gateway.events.event import encode
from celery_gateway.events.fields import ALL_FIELDS, Fields
from celery_gateway.state.task import encode_attempts, encode_fields, stale_field
from celery_gateway.state.task_record import Record, shows_attempts

MAX_DEPTH = 100
MEMBERS_PER_STEP = 500
"""How many tasks are processed between two pieces: a millisecond of work."""
BYTES_PER_PIECE = 64 << 10
MEMBER_BYTES = 600
"""The size of a task without its JSON, with its places in the tree. (Measured: 560.)"""
STEP_BYTES = 120
"""The size of a step of the critical path."""


class _Member(msgspec.Struct, gc=False):
    """A task as it was when it was added."""

    number: int
    uuid: str
    parent_id: str | None
    name: str | None
    state: str
    is_ready: bool
    is_running: bool
    is_sent: bool
    progress: float
    begun_at: float
    last_at: float
    json: bytes


class _Step(msgspec.Struct, gc=False):
    uuid: str
    name: str | None
    state: str
    seconds: float


class Workflow:
    """Collects the tasks of a root, and encodes them as a tree.

    Args:
        fields: the fields of a task (``task.VIEW_FIELDS``), besides ``uuid`` and ``children``; all do not
            include ``attempts``.
        is_visible: returns whether a task belongs to what the client may see; ``None``: all do.
    """

    def __init__(
        self,
        root_id: str,
        fields: Fields = ALL_FIELDS,
        is_visible: Callable[[Record], bool] | None = None,
    ) -> None:
        self.fields = fields
        self._root_id = root_id
        self._is_visible = is_visible
        self._bytes = 0
        self._members: dict[str, _Member] = {}
        self._by_number: dict[int, _Member] = {}  # while it is encoded

    @property
    def is_restricted(self) -> bool:
        """Whether some tasks may not be visible."""
        return self._is_visible is not None

    @property
    def size_bytes(self) -> int:
        """Its size in memory, by estimate."""
        return self._bytes

    @property
    def total(self) -> int:
        """How many tasks it has."""
        return len(self._members)

    def add(self, record: Record) -> None:
        """Encode a task as it is now, in place of what was added of it before.

        A task that has left the workflow is removed.
        """
        task = record.task
        before = self._members.get(task.uuid)
        if before is not None:
            self._bytes -= MEMBER_BYTES + len(before.json)
        if task.root_id != self._root_id or (self._is_visible is not None and not self._is_visible(record)):
            self._members.pop(task.uuid, None)
            return
        json = self._encode(record)
        self._bytes += MEMBER_BYTES + len(json)
        begun_at = task.begun_at or task.timestamp
        progress = 0.0 if "progress" in self.fields.hidden else task.progress or 0.0
        self._members[task.uuid] = _Member(
            number=record.number,
            uuid=task.uuid,
            parent_id=task.parent_id,
            name=task.name,
            state=task.state or "PENDING",
            is_ready=task.is_ready,
            is_running=task.is_running or task.state == "RETRY",
            is_sent=task.sent is not None,
            progress=1.0 if task.is_ready else progress,
            begun_at=begun_at,
            last_at=task.ended_at or task.timestamp,
            json=json,
        )

    def free(self) -> bool:
        """Remove some tasks from memory; return whether there are more."""
        for _ in range(min(len(self._members), MEMBERS_PER_STEP)):
            self._members.popitem()
        for _ in range(min(len(self._by_number), MEMBERS_PER_STEP)):
            self._by_number.popitem()
        return bool(self._members or self._by_number)

    def pieces(self) -> Iterator[bytes]:
        """Yield the workflow as JSON without its last brace, in pieces; many are empty.

        A piece takes some milliseconds at most, whatever the size of the workflow. The tasks are removed as
        they are encoded: call it once.
        """
        members = self._by_number
        counts: Counter[str] = Counter()
        total = len(self._members)
        ready, sent, progress = 0, 0, 0.0
        for index, member in enumerate(self._members.values()):
            members[member.number] = member
            counts[member.state] += 1
            ready += member.is_ready
            sent += member.is_sent
            progress += member.progress
            if index % MEMBERS_PER_STEP == 0:
                yield b""
        path: list[_Step] = []
        for _ in self._follow(path):
            yield b""
        head = {
            "root_id": self._root_id,
            "total": total,
            "known": total,
            "ready": ready,
            "sent_events": sent == total,
            "progress": progress / total if total else 0.0,
            "counts": counts,
        }
        yield encode(head)[:-1]
        yield b',"critical_path":['
        for start in range(0, len(path), MEMBERS_PER_STEP):
            yield (b"," if start else b"") + encode(path[start : start + MEMBERS_PER_STEP])[1:-1]
        yield b'],"tasks":['
        yield from self._tree(members)
        yield b"]"

    def _encode(self, record: Record) -> bytes:
        task = record.task
        current = stale_field(task) if "stale" in self.fields else b""
        if shows_attempts(self.fields, with_attempts=False):
            current += b',"attempts":%b' % encode_attempts(record.current_run(), self.fields)
        return b'%b%b,"children":[' % (encode_fields(task, self.fields), current)

    def _follow(self, path: list[_Step]) -> Iterator[None]:
        """Append the steps of the critical path, a few at a time."""
        last: _Member | None = None
        rank = (0, 0.0)
        for index, member in enumerate(self._members.values()):
            if member.is_running:
                rank_of_member = (2, -member.begun_at)
            else:
                rank_of_member = (1, member.last_at) if member.is_ready else (0, 0.0)
            if last is None or rank_of_member > rank:
                last, rank = member, rank_of_member
            if index % MEMBERS_PER_STEP == 0:
                yield
        seen: set[str] = set()
        while last is not None and last.uuid not in seen:
            seen.add(last.uuid)
            # A busy client can report that it has sent a task after the task has ended.
            path.append(_Step(last.uuid, last.name, last.state, max(0.0, last.last_at - last.begun_at)))
            self._bytes += STEP_BYTES
            last = self._members.get(last.parent_id or "")
            if len(path) % MEMBERS_PER_STEP == 0:
                yield
        path.reverse()

    def _tree(self, members: dict[int, _Member]) -> Iterator[bytes]:
        numbers = sorted(members)  # they nearly are, so that it takes a millisecond
        yield b""
        links = _Links()
        for index, number in enumerate(numbers):
            member = members[number]
            parent = self._members.get(member.parent_id or "")
            links.add(number, None if parent is None or parent is member else parent.number)
            if index % MEMBERS_PER_STEP == 0:
                yield b""
        self._members.clear()
        written: list[bytes] = []
        size_bytes = 0
        separator = b""
        for root in links.tops(numbers, members):
            due = [root]  # the task that comes next, at each depth; 0 if none is left there
            while due:
                number = due[-1]
                if not number:
                    due.pop()
                    if due:
                        written.append(b"]}")
                        separator = b","
                    continue
                due[-1] = links.sibling.get(number, 0) if len(due) > 1 else 0
                opened = members.pop(number, None)
                if opened is None:
                    continue
                written += (separator, opened.json)
                self._bytes -= MEMBER_BYTES + len(opened.json)
                separator = b""
                child = links.first_child.get(number, 0)
                if len(due) >= MAX_DEPTH:
                    yield from links.make_roots(child)
                    child = 0
                due.append(child)
                size_bytes += len(opened.json)
                if size_bytes >= BYTES_PER_PIECE or len(written) >= 2 * MEMBERS_PER_STEP:
                    yield b"".join(written)
                    written.clear()
                    size_bytes = 0
        yield b"".join(written)


class _Links:
    """The shape of the tree, by the numbers of the tasks. (Lists would be 50,000 objects for the collector.)

    Attributes:
        roots: the tasks that have no parent in the tree.
        first_child: by parent.
        sibling: the next child of the same parent.
    """

    __slots__ = ("roots", "first_child", "sibling", "_last_child")

    def __init__(self) -> None:
        self.roots: deque[int] = deque()
        self.first_child: dict[int, int] = {}
        self.sibling: dict[int, int] = {}
        self._last_child: dict[int, int] = {}

    def add(self, number: int, parent: int | None) -> None:
        """Add a task as the last child of a parent, or as the last root."""
        if parent is None:
            self.roots.append(number)
            return
        if parent in self.first_child:
            self.sibling[self._last_child[parent]] = number
        else:
            self.first_child[parent] = number
        self._last_child[parent] = number

    def make_roots(self, child: int) -> Iterator[bytes]:
        """Make a child and its siblings roots, in small steps; 0: there is none."""
        while child:
            self.roots.append(child)
            child = self.sibling.get(child, 0)
            if len(self.roots) % MEMBERS_PER_STEP == 0:
                yield b""

    def tops(self, numbers: list[int], members: dict[int, _Member]) -> Iterator[int]:
        """Yield the roots, with those that are made meanwhile; then one task of each circle of parents."""
        while self.roots:
            yield self.roots.popleft()
        for number in numbers:
            if number in members:
                yield number
                while self.roots:
                    yield self.roots.popleft()
