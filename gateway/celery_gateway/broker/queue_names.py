"""The names of queues that users list, as the setting ``queues`` has them. Pure."""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

MAX_QUEUES: Final = 200
"""How many queues of a broker are read at most, and how many names may be listed."""
MAX_NAME_BYTES: Final = 255
"""The longest name of a queue in AMQP 0-9-1 (a short string)."""


def parse_queues(values: str | Iterable[str]) -> tuple[str, ...]:
    """Return names of queues, once each; with ``BROKER=`` before a name where there are several brokers.

    Args:
        values: one value may have several names, separated by commas.

    Raises:
        ValueError: a name is empty or too long, or there are too many.

    >>> parse_queues(["mail,video", "eu=mail"])
    ('mail', 'video', 'eu=mail')
    """
    listed = [values] if isinstance(values, str) else values
    # In the environment, values are separated by spaces: "mail, video" comes as "mail," and "video".
    names = [name.strip() for value in listed for name in value.strip().removesuffix(",").split(",")]
    if not all(names):
        raise ValueError("a queue is empty; separate several with one comma each, such as mail,video")
    for name in names:
        if not is_queue_name(name):
            raise ValueError(f"{name[:50]!r}… is too long: a queue's name has at most {MAX_NAME_BYTES} bytes")
    unique = tuple(dict.fromkeys(names))
    if len(unique) > MAX_QUEUES:
        raise ValueError(f"there are {len(unique)} queues; at most {MAX_QUEUES} are allowed")
    return unique


def is_queue_name(name: str) -> bool:
    """Return whether a broker can have a queue of this name."""
    return 0 < len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES


def queues_of(names: Sequence[str], cluster: str | None, clusters: Collection[str | None]) -> list[str]:
    """Return the listed queues of one broker.

    Args:
        names: as ``parse_queues`` returns them.
        cluster: the broker's name; ``None`` for the only broker.
        clusters: the names of all brokers: a name before ``=`` that is none of them is part of the queue's.

    >>> queues_of(["mail", "eu=video", "a=b"], "us", ["eu", "us"])
    ['mail', 'a=b']
    """
    found = []
    for name in names:
        before, _, after = name.partition("=")
        if not after or before not in clusters:
            found.append(name)
        elif before == cluster:
            found.append(after)
    return list(dict.fromkeys(found))
