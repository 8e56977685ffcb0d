"""The dashboard's files: its page, its scripts and styles, and the headers that they are served with.

They are built from ``clients/dashboard`` into ``dashboard_files``, which is part of the package. The URLs of
scripts and styles have a hash of all files in them, so browsers keep these files for a year, and a new
version of the gateway has other URLs.
"""

import gzip
import hashlib
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final, Literal, NamedTuple

from celery_gateway import __version__

PageAccess = Literal["open", "token", "session", "login", "forbidden"]
_TAG: Final = '<html lang="en" data-access="open" data-may="" data-actions="" data-version="">'
_BASE: Final = '<base href="./">'
_ASSETS: Final = "assets/HASH/"
_TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",  # includes WebSockets of the same host and port
    "img-src": "data:",  # the icon
    "base-uri": "'self'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",  # the page never creates markup or code from text
    "trusted-types": "'none'",
}
POLICY: Final = "; ".join(f"{name} {value}" for name, value in _POLICY.items())
_FEATURES: Final = ("camera", "display-capture", "geolocation", "microphone", "payment", "usb")
PAGE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,  # W3C, Content Security Policy Level 3
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{feature}=()" for feature in _FEATURES),
    "X-Frame-Options": "DENY",
}


class Asset(NamedTuple):
    """One file.

    Attributes:
        body: its bytes.
        gzipped: the same, compressed.
        media_type: the value of ``Content-Type``.
        etag: the value of ``ETag``; the compressed one has another.
    """

    body: bytes
    gzipped: bytes
    media_type: str
    etag: str


class Dashboard(NamedTuple):
    """The page, and the files that it loads.

    Attributes:
        html: the page without authentication, at the root of the gateway.
        hash: the part of the URLs that changes with the files.
        assets: the files by their names.
    """

    html: str
    hash: str
    assets: dict[str, Asset]

    def page(
        self, access: PageAccess, base: str = "./", may: Iterable[str] = (), actions: Iterable[str] = ()
    ) -> str:
        """Return the page for a request.

        Args:
            access: ``open``: there is no authentication. ``token``: a header, a query parameter or a proxy
                has authenticated the request. ``session``: a cookie has; the page can end the session.
                ``login``: nothing has, so the page is a form for a token. ``forbidden``: the same form, for a
                token whose scope does not allow the dashboard.
            base: the way to the root of the gateway, such as ``../``.
            may: the kinds of endpoints that the user may read, such as ``state``.
            actions: what the user may do, such as ``revoke``.
        """
        version = "" if access in ("login", "forbidden") else __version__
        values = {"may": " ".join(may), "actions": " ".join(actions), "version": version}
        tag = _TAG.replace("open", access, 1)
        for name, value in values.items():
            tag = tag.replace(f'{name}=""', f'{name}="{escape(value)}"')
        return self.html.replace(_TAG, tag, 1).replace(_BASE, _BASE.replace("./", escape(base)), 1)


@cache
def load() -> Dashboard:
    """Read the files, compress them, and compute their hash; once in a process.

    Raises:
        RuntimeError: the page is not one that this module can complete.
    """
    folder = files("celery_gateway.http").joinpath("dashboard_files")
    contents = {file.name: file.read_bytes() for file in sorted(folder.iterdir(), key=lambda file: file.name)}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(b"%s %d\n%s" % (name.encode(), len(content), content))
    version = digest.hexdigest()[:16]
    html = contents.pop("index.html").decode()
    for expected in (_TAG, _BASE, _ASSETS):
        if expected not in html:
            raise RuntimeError(f"the dashboard's page has no {expected}: build it again (make dashboard)")
    assets = {}
    for name, content in contents.items():
        etag = hashlib.sha256(content).hexdigest()[:32]
        media_type = _TYPES[name[name.rindex(".") :]]
        assets[name] = Asset(content, gzip.compress(content, mtime=0), media_type, etag)
    return Dashboard(html.replace(_ASSETS, f"assets/{version}/"), version, assets)
