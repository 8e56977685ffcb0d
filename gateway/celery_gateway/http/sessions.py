"""Sessions of browsers: a cookie that has a token, and the id of a session that can be ended.

Rules: the gateway stores no open session, so any gateway with the same ``--auth`` accepts the cookie. It
remembers the sessions that have ended, so that a copy of the cookie is refused by this process, too.
"""

import secrets
from collections import OrderedDict
from typing import Final

MAX_ENDED: Final = 100_000
"""So many ended sessions are remembered, in about 15 MB."""
ID_BYTES: Final = 12


class Sessions:
    """Makes the ids of sessions, and remembers those that have ended."""

    def __init__(self) -> None:
        self._ended: OrderedDict[str, None] = OrderedDict()

    def new_id(self) -> str:
        """Return the id of a new session."""
        return secrets.token_urlsafe(ID_BYTES)

    def has_ended(self, id: str) -> bool:
        """Return whether a session was ended lately."""
        return id in self._ended

    def end(self, id: str) -> None:
        """Remember that a session has ended. May be called again."""
        self._ended[id] = None
        self._ended.move_to_end(id)
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
