"""The dashboard: its page, and the Content Security Policy that allows its script and no other."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final, Literal, NamedTuple

PageAccess = Literal["open", "token", "session", "login", "forbidden"]
_OPEN: Final = '<html lang="en" data-access="open">'


class Dashboard(NamedTuple):
    """The page, and the value of its header ``Content-Security-Policy``.

    Attributes:
        html: the page without authentication.
        policy: the same for every ``page``.
    """

    html: str
    policy: str

    def page(self, access: PageAccess) -> str:
        """Return the page for a request.

        Args:
            access: ``open``: there is no authentication. ``token``: a header, a query parameter or a proxy
                has authenticated the request. ``session``: a cookie has; the page can end the session.
                ``login``: nothing has, so the page is a form for a token. ``forbidden``: the same form, for a
                token whose scope does not allow the dashboard.
        """
        return self.html.replace(_OPEN, _OPEN.replace("open", access), 1)


def load() -> Dashboard:
    """Read the page and compute its policy (W3C, Content Security Policy Level 3).

    The page has one script and one style sheet, both inline: the policy allows them by their hashes. It loads
    nothing else but streams of the same origin, and the icon, which is a ``data:`` URL.
    """
    html = files("celery_gateway.http").joinpath("dashboard.html").read_text(encoding="utf-8")
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(html, "script"),
        "style-src": _hashes(html, "style"),
        "connect-src": "'self'",  # includes WebSockets of the same host and port
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",  # the page never creates markup from text
    }
    return Dashboard(html, "; ".join(f"{name} {value}" for name, value in policy.items()))


def _hashes(html: str, tag: str) -> str:
    contents = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = [hashlib.sha256(content.encode()).digest() for content in contents]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
