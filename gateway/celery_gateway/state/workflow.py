"""A workflow: the tasks of one root as a tree, with counts, progress and the path that takes longest.

Its members are frozen one by one as they are given (see ``scan``), and put together from the frozen bytes.
Both go in small steps, and nothing recurses: a root may have 50,000 tasks, abreast or in a chain.

- A task stands among its parent's ``children``. One whose parent is not among the members (it has none, or
  it is forgotten) is a root of the tree.
- At a depth of ``MAX_DEPTH`` the tree is cut: what would come below stands as a further root in ``tasks``,
  with its ``parent_id``. Parsers of JSON give up at some hundreds of levels (Python, jq); a task takes two.
- Children, and roots, are in the order in which they became known.
- ``total``, and ``known``, is how many tasks are known. ``sent_events``: of each of them ``task-sent`` has
  come; where it has not, more may wait in a queue unseen.
- ``progress`` is 0..1: a task that is ready counts 1, one that is not as far as it says it is.
- ``critical_path`` leads from a root to the task that has been running for longest, or, if none runs, to
  that which ended last. ``seconds`` are a task's own, from sent (or first heard of) to its end, or, of one
  that runs, to its youngest event.
"""

from collections import Counter, deque
from collections.abc import Iterator

import msgspec

from gateway.event import encode
from gateway.task import Task, encode_tries
from gateway.tasks import Record

MAX_DEPTH = 100
MEMBERS_A_STEP = 500
"""How many are looked at between two pieces: a millisecond of work."""
BYTES_A_PIECE = 64 << 10


class _Member(msgspec.Struct, gc=False):
    """A task as it was when it was given."""

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
    """Takes the tasks of a root, then gives them as a tree.

    Args:
        fields: which of a task's fields are wanted (``task.VIEW_FIELDS``), beside ``uuid`` and ``children``;
            ``None`` for all.
    """

    def __init__(self, root_id: str, fields: frozenset[str] | None = None) -> None:
        self._root_id = root_id
        self._fields = fields
        self._members: dict[str, _Member] = {}

    @property
    def total(self) -> int:
        """How many tasks it has taken."""
        return len(self._members)

    def take(self, record: Record) -> None:
        """Freeze a task as it is now; one that was taken before is replaced, one that has left is dropped."""
        task = record.task
        if task.root_id != self._root_id:
            self._members.pop(task.uuid, None)
            return
        begun_at = task.begun_at or task.timestamp
        ended_at = task.ended_at or task.timestamp
        self._members[task.uuid] = _Member(
            number=record.number,
            uuid=task.uuid,
            parent_id=task.parent_id,
            name=task.name,
            state=task.state or "PENDING",
            is_ready=task.is_ready,
            is_running=task.is_running or task.state == "RETRY",
            is_sent=task.sent is not None,
            progress=1.0 if task.is_ready else task.progress or 0.0,
            begun_at=begun_at,
            last_at=max(begun_at, ended_at if task.is_ready else task.timestamp),
            json=self._freeze(record),
        )

    def pieces(self) -> Iterator[bytes]:
        """Give the workflow as JSON but for its last brace, in pieces; many are empty.

        A piece takes some milliseconds at most, whatever the size of the workflow. It gives up what it has
        taken: this can be asked once.
        """
        members: dict[int, _Member] = {}
        counts: Counter[str] = Counter()
        total = len(self._members)
        ready, sent, progress = 0, 0, 0.0
        for index, member in enumerate(self._members.values()):
            members[member.number] = member
            counts[member.state] += 1
            ready += member.is_ready
            sent += member.is_sent
            progress += member.progress
            if index % MEMBERS_A_STEP == 0:
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
        for start in range(0, len(path), MEMBERS_A_STEP):
            yield (b"," if start else b"") + encode(path[start : start + MEMBERS_A_STEP])[1:-1]
        yield b'],"tasks":['
        yield from self._tree(members)
        yield b"]"

    def _freeze(self, record: Record) -> bytes:
        task = record.task
        stale = b"false" if task.lost is None else b"true"
        if self._fields is None:
            return b'%b,"stale":%b,"children":[' % (encode(task)[:-1], stale)
        picked = {"uuid": task.uuid}
        for field in Task.__struct_fields__:
            if field in self._fields and (value := getattr(task, field)) is not msgspec.UNSET:
                picked[field] = value
        shown = b',"stale":%b' % stale if "stale" in self._fields else b""
        if "tries" in self._fields:
            shown += b',"tries":%b' % encode_tries(record.tries())
        return b'%b%b,"children":[' % (encode(picked)[:-1], shown)

    def _follow(self, path: list[_Step]) -> Iterator[None]:
        """Put the steps of the critical path down, a few at a time."""
        last: _Member | None = None
        rank = (0, 0.0)
        for index, member in enumerate(self._members.values()):
            if member.is_running:
                of_this = (2, -member.begun_at)
            else:
                of_this = (1, member.last_at) if member.is_ready else (0, 0.0)
            if last is None or of_this > rank:
                last, rank = member, of_this
            if index % MEMBERS_A_STEP == 0:
                yield
        seen: set[str] = set()
        while last is not None and last.uuid not in seen:
            seen.add(last.uuid)
            path.append(_Step(last.uuid, last.name, last.state, last.last_at - last.begun_at))
            last = self._members.get(last.parent_id or "")
            if len(path) % MEMBERS_A_STEP == 0:
                yield
        path.reverse()

    def _tree(self, members: dict[int, _Member]) -> Iterator[bytes]:
        numbers = sorted(members)  # they nearly are, so that it takes a millisecond
        yield b""
        roots: deque[int] = deque()
        # Who comes below and beside whom, by numbers: lists would be 50,000 things for the garbage collector.
        first_child: dict[int, int] = {}
        last_child: dict[int, int] = {}
        sibling: dict[int, int] = {}
        for index, number in enumerate(numbers):
            member = members[number]
            parent = self._members.get(member.parent_id or "")
            if parent is None or parent is member:
                roots.append(number)
            elif parent.number in first_child:
                sibling[last_child[parent.number]] = number
                last_child[parent.number] = number
            else:
                first_child[parent.number] = last_child[parent.number] = number
            if index % MEMBERS_A_STEP == 0:
                yield b""
        self._members.clear()
        written: list[bytes] = []
        size_bytes = 0
        separator = b""
        for root in _tops(roots, numbers, members):
            due = [root]  # the task that comes next, at each depth; 0 if none is left there
            while due:
                number = due[-1]
                if not number:
                    due.pop()
                    if due:
                        written.append(b"]}")
                        separator = b","
                    continue
                due[-1] = sibling.get(number, 0) if len(due) > 1 else 0
                opened = members.pop(number, None)
                if opened is None:
                    continue
                written += (separator, opened.json)
                separator = b""
                child = first_child.get(number, 0)
                if len(due) >= MAX_DEPTH:
                    while child:
                        roots.append(child)
                        child = sibling.get(child, 0)
                due.append(child)
                size_bytes += len(opened.json)
                if size_bytes >= BYTES_A_PIECE or len(written) >= 2 * MEMBERS_A_STEP:
                    yield b"".join(written)
                    written.clear()
                    size_bytes = 0
        yield b"".join(written)


def _tops(roots: deque[int], numbers: list[int], members: dict[int, _Member]) -> Iterator[int]:
    """Give the roots, those that are added meanwhile, and what has none: parents may lead in a circle."""
    while roots:
        yield roots.popleft()
    for number in numbers:
        if number in members:
            yield number
            while roots:
                yield roots.popleft()
