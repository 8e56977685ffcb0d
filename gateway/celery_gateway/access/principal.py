"""A principal: who makes a request, and until when. Pure."""

from dataclasses import dataclass
from typing import Final

from celery_gateway.access.scope import EVERYTHING, Scope


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, as its token says.

    Attributes:
        name: identifies the principal in quotas and logs, such as ``token:grafana`` or
            ``https://shop.example:alice``; empty without authentication.
        scope: what it may read.
        expires_at: when its token ends, in epoch seconds; ``None`` if it does not.
        credential: identifies the token, or the session of a browser, without revealing it: streams end when
            it is revoked. Empty if it cannot be revoked.
        quota: the limits of this principal by name, in place of the general ones.
    """

    name: str = ""
    scope: Scope = EVERYTHING
    expires_at: float | None = None
    credential: str = ""
    quota: tuple[tuple[str, float], ...] = ()


ANYONE: Final = Principal()
"""Makes all requests if there is no authentication."""
