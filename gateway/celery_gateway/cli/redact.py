"""HTTP URLs without their secrets, for logs and errors."""

import re

_URL = re.compile(r"(?P<scheme>[^:/?#]*://)?(?P<rest>.*)", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(?:\[[^]@]*]|[^:/?#@\[\]]*)(?::\d{0,5})?(?=[/?#]|$)")
_USER = re.compile(r"[^:@/?#]*")
_INNER = re.compile(r"://[^/?#@\s]*@")
"""The user and password of a URL within a query."""
_SECRET = re.compile(
    r"(?i)([?&;#][^=&;#]*(?:token|password|passwd|pwd|secret|key|auth|credential|signature|session|jwt|sig|code)"
    r"[^=&;#]*=)[^&;#]*"
)


def redacted(url: str) -> str:
    """Return a URL with ``***`` for passwords and tokens, also if it is malformed.

    A user without a password may be a token. A password with an unescaped ``/``, ``?`` or ``#`` seems to end
    the host: if there is no host and port before that character, everything up to the last ``@`` is taken for
    a password.

    >>> redacted("https://ann:secret@example.com/events?access_token=secret&name=a")
    'https://ann:***@example.com/events?access_token=***&name=a'
    """
    found = _URL.fullmatch(url)
    assert found is not None  # it matches any text
    scheme, rest = found["scheme"] or "", found["rest"]
    is_host = _HOST_AND_PORT.match(rest) is not None
    before_query = re.split(r"[?#]", rest, maxsplit=1)[0]
    end = (before_query if is_host or "@" in before_query else rest).rfind("@")
    if end >= 0:
        user = _USER.match(rest[:end])
        name = user[0] if user is not None and rest[user.end()] == ":" else ""
        rest = f"{name}:***{rest[end:]}" if name else f"***{rest[end:]}"
    return scheme + _INNER.sub("://***@", _SECRET.sub(r"\1***", rest))
