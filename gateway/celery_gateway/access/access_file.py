"""The TOML file of ``--auth``: static tokens, issuers of JSON Web Tokens, and a proxy that authenticates.

``read`` checks all of it and returns frozen objects. Relative paths in the file are relative to it. Errors
name the file and the key, and never contain a token or a secret.
"""

import hashlib
import json
import re
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt

from celery_gateway.access import jwt_keys
from celery_gateway.access.access_table import Table
from celery_gateway.access.scope import Scope
from celery_gateway.access.static_tokens import parse_hash
from celery_gateway.errors import GatewayError
from celery_gateway.tokens import ALGORITHMS, DEFAULT_AUDIENCE

QuotaLimits = tuple[tuple[str, float], ...]
FileVersion = tuple[int, int, int] | None
"""Changes when a file is written or replaced, also if a link to it is replaced; ``None`` without a file."""

DEFAULT_LEEWAY_SECONDS: Final = 30.0
MAX_LEEWAY_SECONDS: Final = 600.0
MAX_KEY_FILE_BYTES: Final = 64 << 10
LOOPBACK_HOSTS: Final = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_KEY_SOURCES: Final = ("secret_file", "key_file", "jwks_url")


@dataclass(frozen=True, slots=True)
class StaticToken:
    """A table ``[tokens.NAME]``: the digest of the token, and its end in epoch seconds."""

    name: str
    digest: str = field(repr=False)
    scope: Scope
    expires_at: float | None
    quota: QuotaLimits


@dataclass(frozen=True, slots=True)
class Issuer:
    """A table ``[issuers.NAME]``.

    Attributes:
        key: of ``secret_file`` or ``key_file``; ``None`` with ``jwks_url``.
        jwks_url: where its keys are; empty with a file.
        scope: of tokens without a scope of their own; ``None`` to refuse them.
        fingerprint: changes with any value of the table, and with the key.
    """

    name: str
    issuer: str
    audience: str
    algorithm: str
    key: jwt.PyJWK | None = field(repr=False, compare=False)
    jwks_url: str
    leeway_seconds: float
    scope: Scope | None
    quota: QuotaLimits
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ProxyUser:
    """The scope and the quota of users that a proxy has authenticated."""

    scope: Scope
    quota: QuotaLimits


@dataclass(frozen=True, slots=True)
class ProxyAccess:
    """The table ``[proxy]``; ``others`` is ``None`` if users without an entry of their own are refused."""

    user_header: str
    users: Mapping[str, ProxyUser]
    others: ProxyUser | None


@dataclass(frozen=True, slots=True)
class AccessFile:
    """What the file contains.

    Attributes:
        quota: the limits of all principals by name.
        watched: the versions of the file and of the files with keys that it refers to.
        warnings: problems with permissions of files, for the log.
    """

    tokens: tuple[StaticToken, ...]
    issuers: tuple[Issuer, ...]
    proxy: ProxyAccess | None
    quota: Mapping[str, float]
    watched: Mapping[Path, FileVersion]
    warnings: tuple[str, ...]


def read(path: str | Path) -> AccessFile:
    """Read and check the file.

    Raises:
        GatewayError: it is missing or malformed, or a file that it refers to is.
    """
    try:
        return _Reader(Path(path)).access_file()
    except (OSError, RecursionError, ValueError) as error:  # the last for integers that are too long
        raise GatewayError(f"cannot read the file of --auth, {path}: {error}") from None


def read_static_tokens(path: str | Path) -> tuple[StaticToken, ...]:
    """Read and check the static tokens only, without the files that other tables refer to.

    Raises:
        GatewayError: the file is missing, or malformed there.
    """
    return _static_tokens(Table(Path(path), "", _document(Path(path))))


def versions(paths: Iterable[Path]) -> dict[Path, FileVersion]:
    """Return the present versions of files."""
    return {path: _version(path) for path in paths}


def _version(path: Path) -> FileVersion:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class _Reader:
    """Reads one version of the file, and collects the files with keys, and warnings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Versions are taken before files are read: a change in between is found later.
        self._watched = versions([path])
        self._warnings: list[str] = []

    def access_file(self) -> AccessFile:
        root = Table(self._path, "", _document(self._path))
        root.allow("quota", "tokens", "issuers", "proxy")
        # Only who may write this file can grant access. It has no secrets to read: only hashes.
        self._check_mode(self._path, stat.S_IWOTH, "can be changed by other users of this machine", "o-w")
        tokens = _static_tokens(root)
        issuers = tuple(self._issuer(name, table) for name, table in root.tables("issuers"))
        proxy = _proxy(root.table("proxy")) if "proxy" in root else None
        if not tokens and not issuers and proxy is None:
            # No error: a running gateway would keep the version before, and so a token that was removed.
            self._warnings.append(
                f"{self._path} has no [tokens.NAME], no [issuers.NAME] and no [proxy], so all requests are "
                f"refused: run celery-gateway token create NAME --auth {self._path}"
            )
        quota = dict(root.quota())
        return AccessFile(tokens, issuers, proxy, quota, self._watched, tuple(self._warnings))

    def _issuer(self, name: str, table: Table) -> Issuer:
        table.allow(
            *("issuer", "audience", "algorithm", *_KEY_SOURCES, "leeway_seconds", "scope", "quota"),
        )
        algorithm = table.choice("algorithm", ALGORITHMS)
        sources = [source for source in _KEY_SOURCES if source in table]
        wanted = ("secret_file",) if algorithm == "HS256" else ("key_file", "jwks_url")
        if len(sources) != 1 or sources[0] not in wanted:
            raise table.error(
                "", f"{algorithm} needs {' or '.join(wanted)}, and only one of {', '.join(_KEY_SOURCES)}"
            )
        key, key_bytes, jwks_url = None, b"", ""
        if sources[0] == "jwks_url":
            jwks_url = _jwks_url(table, algorithm)
        else:
            key, key_bytes = self._key(table, sources[0], algorithm)
        described = json.dumps(table.value, sort_keys=True, default=str).encode()
        return Issuer(
            name=name,
            issuer=table.text("issuer"),
            audience=table.text("audience", DEFAULT_AUDIENCE),
            algorithm=algorithm,
            key=key,
            jwks_url=jwks_url,
            leeway_seconds=table.number("leeway_seconds", DEFAULT_LEEWAY_SECONDS, 0, MAX_LEEWAY_SECONDS),
            scope=table.scope() if "scope" in table else None,
            quota=table.quota(),
            fingerprint=hashlib.sha256(described + b"\0" + key_bytes).hexdigest(),
        )

    def _key(self, table: Table, source: str, algorithm: str) -> tuple[jwt.PyJWK, bytes]:
        path = self._path.parent / table.text(source)
        self._watched[path] = _version(path)
        try:
            with path.open("rb") as file:
                content = file.read(MAX_KEY_FILE_BYTES + 1)
        except OSError as error:
            raise table.error(source, f"cannot read {path}: {error.strerror}") from None
        if len(content) > MAX_KEY_FILE_BYTES:
            raise table.error(source, f"{path} has more than {MAX_KEY_FILE_BYTES} bytes, so it is no key")
        try:
            if source == "key_file":
                return jwt_keys.public_key(content, algorithm), content
            key = jwt_keys.secret_key(content)
        except ValueError as error:
            raise table.error(source, f"{path} cannot be used: {error}") from None
        self._check_mode(path, stat.S_IROTH, "has a secret that other users of this machine can read", "o-r")
        return key, content

    def _check_mode(self, path: Path, bit: int, problem: str, fix: str) -> None:
        if path.stat().st_mode & bit:
            self._warnings.append(f"{path} {problem}: run chmod {fix} {path}")


def _document(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise GatewayError(
            f"cannot read the file of --auth, {path}: {error.strerror}. "
            f"Create it with: celery-gateway token create NAME --auth {path}"
        ) from None
    except UnicodeDecodeError as error:
        raise GatewayError(f"{path}: byte {error.start} is no UTF-8, which TOML requires") from None
    except tomllib.TOMLDecodeError as error:
        raise GatewayError(f"{path}: invalid TOML: {error}") from None


def _static_tokens(root: Table) -> tuple[StaticToken, ...]:
    tokens = tuple(_static_token(name, table) for name, table in root.tables("tokens"))
    names: dict[str, str] = {}
    for token in tokens:
        if (other := names.setdefault(token.digest, token.name)) != token.name:
            raise root.error(f"tokens.{token.name}.hash", f"tokens.{other} has the same hash")
    return tokens


def _static_token(name: str, table: Table) -> StaticToken:
    table.allow("hash", "scope", "expires", "quota")
    try:
        digest = parse_hash(table.text("hash"))
    except ValueError as error:
        raise table.error("hash", str(error)) from None
    return StaticToken(name, digest, table.scope(), table.time("expires"), table.quota())


def _proxy(table: Table) -> ProxyAccess:
    table.allow("user_header", "scope", "quota", "users")
    header = table.text("user_header")
    if not _HEADER_NAME.fullmatch(header):
        raise table.error("user_header", "it must be the name of a header, such as 'X-Forwarded-User'")
    users = {}
    for name, user in table.tables("users"):
        user.allow("scope", "quota")
        users[name] = ProxyUser(user.scope(), user.quota())
    others = ProxyUser(table.scope(), table.quota()) if "scope" in table else None
    if not users and others is None:
        raise table.error("", "it has neither users nor a scope, so all users would be refused")
    return ProxyAccess(header.lower(), users, others)


def _jwks_url(table: Table, algorithm: str) -> str:
    text = table.text("jwks_url")
    try:
        jwt_keys.require_cryptography(algorithm)
        url = urlsplit(text)
        host, _ = url.hostname or "", url.port
    except ValueError as error:
        raise table.error("jwks_url", str(error)) from None
    if url.username is not None or url.password is not None:
        raise table.error("jwks_url", "it must not have a user name or password")  # errors do not repeat it
    is_safe = url.scheme == "https" or (url.scheme == "http" and LOOPBACK_HOSTS.fullmatch(host))
    if not host or not is_safe:
        raise table.error(
            "jwks_url", f"{text!r} is not allowed: use https://, or http:// for a loopback address only"
        )
    return text
