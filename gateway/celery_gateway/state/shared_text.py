"""Texts that many tasks have in common: names, nodes, queues. There is one copy of each in memory. Pure."""

MAX_NAME_CHARS = 255
"""The maximum length of the name of an event type or a node. (A routing key has at most 255 bytes.)"""
MAX_SHARED_TEXTS = 10_000

_texts: dict[str, str] = {}


def shared(text: str) -> str:
    """Return the one copy of a text. (Not ``sys.intern``: it may keep texts for ever.)"""
    if len(_texts) >= MAX_SHARED_TEXTS:
        _texts.clear()
    return _texts.setdefault(text, text) if len(text) <= MAX_NAME_CHARS else text
