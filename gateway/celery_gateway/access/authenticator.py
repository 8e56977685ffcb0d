"""From a token to a principal, by the access file, which is read again when it has changed.

A new version of the file takes effect within about a second. If it is malformed, the version before stays,
and an error is logged. Principals of JSON Web Tokens are kept until their tokens end, so that each token is
verified once; changed keys and a changed file drop them.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import time
from typing import Final

import jwt

from celery_gateway.access import access_file, jwt_verifier
from celery_gateway.access.access_file import AccessFile, Issuer
from celery_gateway.access.jwks import Jwks
from celery_gateway.access.principal import Principal
from celery_gateway.access.static_tokens import digest
from celery_gateway.errors import Forbidden, GatewayError, InvalidToken
from celery_gateway.tokens import MAX_TOKEN_BYTES

POLL_SECONDS: Final = 1.0
MAX_CACHED_BYTES: Final = 32 << 20
"""Maximum memory of the principals of JSON Web Tokens that are kept, by estimate."""
PRINCIPAL_BYTES: Final = 2_000
COST_BYTES: Final = 200
"""Memory of a principal, and of each unit of the cost of its filter, by estimate. (Measured: 1,200 bytes for
a scope with one uuid, 22,000 with 140 of them, 46,000 with 100 patterns of cost 1,000.)"""
_STATIC, _JWT, _PROXY = "token", "jwt", "proxy"
"""The first part of a credential."""

_log = logging.getLogger(__name__)


class Authenticator:
    """Authenticates by the access file at a path.

    Args:
        path: the file of ``--auth``.

    Attributes:
        on_change: is called after the file was read again.

    Raises:
        GatewayError: the file is missing or malformed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._jwks: dict[tuple[str, str], Jwks] = {}
        self._cache = _Cache()
        self._error = ""
        self.on_change: Callable[[], None] = lambda: None
        self._use(access_file.read(path))

    @property
    def quota(self) -> Mapping[str, float]:
        """The table ``[quota]`` of the file: limits of all principals by name."""
        return self._file.quota

    @property
    def has_proxy(self) -> bool:
        """Whether users may be authenticated by a proxy."""
        return self._file.proxy is not None

    async def authenticate(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            InvalidToken: it is missing, malformed, unknown, expired, or not for this gateway.
            Forbidden: it is valid, but has no scope.
        """
        if not token:
            raise InvalidToken("a token is required", is_missing=True)
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"the token is too long: at most {MAX_TOKEN_BYTES} bytes are allowed")
        try:
            key = digest(token)
        except UnicodeEncodeError:
            raise InvalidToken("the token is malformed: it has characters that no token has") from None
        principal = self._static.get(key) or self._cache.get(key)
        if principal is not None:
            if principal.expires_at is None or time() < principal.expires_at:
                return principal
            raise InvalidToken("the token has expired")
        if not jwt_verifier.looks_like_jwt(token):
            raise InvalidToken("the token is unknown, or was removed")
        principal = await self._verified(token, key)
        self._cache.add(key, principal)
        return principal

    def proxy_principal(self, headers: Mapping[str, str]) -> Principal | None:
        """Return the principal that a trusted proxy has authenticated.

        Args:
            headers: those of a request, by lower-case names.

        Returns:
            ``None`` if the file has no ``[proxy]``, or the request has no header with a user.

        Raises:
            Forbidden: the user has no scope.
        """
        proxy = self._file.proxy
        user = headers.get(proxy.user_header) if proxy is not None else None
        if not user:
            return None
        principal = self._of_user(user)
        if principal is None:
            raise Forbidden("this user is not allowed: [proxy] of the file of --auth has no scope for it")
        return principal

    def is_revoked(self, principal: Principal) -> bool:
        """Return whether the file no longer has what a principal was made of, as it was.

        That is its static token, the issuer of its JSON Web Token (whose keys of a ``jwks_url`` do not
        count), or the entry of a user of a proxy.
        """
        kind, _, rest = principal.credential.partition(":")
        if kind == _STATIC:
            return self._by_credential.get(principal.credential) != principal
        if kind == _JWT:
            return rest.partition(":")[0] not in self._fingerprints
        return kind == _PROXY and self._of_user(rest) != principal

    async def run(self) -> None:
        """Read the file again when it has changed, and keep the keys of issuers fresh, until cancelled."""
        try:
            while True:
                for jwks in self._jwks.values():
                    jwks.start_if_due()  # at the same time: a slow one must not delay the file
                await asyncio.sleep(POLL_SECONDS)
                try:
                    await self._reload()
                except Exception:  # whatever it is: without these checks, no token could be revoked
                    _log.exception("cannot read the file of --auth again; trying again")
        finally:
            await asyncio.gather(*(each.close() for each in self._jwks.values()))

    async def _verified(self, token: str, key: str) -> Principal:
        claimed = jwt_verifier.unverified(token)
        issuers = self._issuers.get(claimed.issuer)
        if issuers is None:
            raise InvalidToken("the issuer of the token (iss) is unknown to this gateway")
        for each in issuers:
            if (jwks := self._jwks_of(each)) and not jwt_verifier.candidates(jwks.keys, claimed.key_id):
                await jwks.fetch()
        # Tables that were replaced in the meantime do not count.
        issuers = self._issuers.get(claimed.issuer, ())
        principal, issuer = jwt_verifier.verify(token, claimed, issuers, self._keys)
        return replace(principal, credential=f"{_JWT}:{issuer.fingerprint}:{key}")

    def _keys(self, issuer: Issuer) -> tuple[jwt.PyJWK, ...]:
        jwks = self._jwks_of(issuer)
        return jwks.keys if jwks else (issuer.key,) if issuer.key is not None else ()

    def _jwks_of(self, issuer: Issuer) -> Jwks | None:
        return self._jwks.get((issuer.jwks_url, issuer.algorithm))

    def _of_user(self, user: str) -> Principal | None:
        proxy = self._file.proxy
        entry = proxy.users.get(user, proxy.others) if proxy is not None else None
        if entry is None or not user.isprintable():
            return None
        return Principal(f"{_PROXY}:{user}", entry.scope, credential=f"{_PROXY}:{user}", quota=entry.quota)

    def _use(self, file: AccessFile) -> None:
        """Replace all that depends on the file, in one step."""
        self._file = file
        self._static = {
            token.digest: Principal(
                f"{_STATIC}:{token.name}",
                token.scope,
                token.expires_at,
                f"{_STATIC}:{token.digest}",
                token.quota,
            )
            for token in file.tokens
        }
        self._by_credential = {principal.credential: principal for principal in self._static.values()}
        self._issuers: dict[str, tuple[Issuer, ...]] = {}
        for issuer in file.issuers:
            self._issuers[issuer.issuer] = (*self._issuers.get(issuer.issuer, ()), issuer)
        self._fingerprints = {issuer.fingerprint for issuer in file.issuers}
        sources = {(issuer.jwks_url, issuer.algorithm) for issuer in file.issuers if issuer.jwks_url}
        self._jwks = {key: self._jwks.get(key) or Jwks(*key, self._cache.clear) for key in sources}
        self._cache.clear()
        for warning in file.warnings:
            _log.warning("%s", warning)

    async def _reload(self) -> None:
        watched = self._file.watched
        if watched == await asyncio.to_thread(access_file.versions, watched):
            self._error = ""  # after an error: the file is the one before again
            return
        try:
            # A malformed version is read again each second: the fix may be in a file that it refers to.
            file = await asyncio.to_thread(access_file.read, self._path)
        except GatewayError as error:
            if str(error) != self._error:
                self._error = str(error)
                _log.error("the changed file of --auth is not used, the version before stays: %s", error)
            return
        self._error = ""
        self._use(file)
        _log.info("the file of --auth has changed and is used: %s", self._path)
        self.on_change()


class _Cache:
    """The principals of verified tokens, by a digest of the token; the oldest are dropped first."""

    def __init__(self) -> None:
        self._principals: OrderedDict[str, Principal] = OrderedDict()
        self._size_bytes = 0

    def get(self, key: str) -> Principal | None:
        return self._principals.get(key)

    def add(self, key: str, principal: Principal) -> None:
        self._drop(key)
        self._principals[key] = principal
        self._size_bytes += _size_bytes(principal)
        now = time()
        while self._principals:
            oldest = next(iter(self._principals.values()))
            if self._size_bytes <= MAX_CACHED_BYTES and (oldest.expires_at or now) >= now:
                break
            self._drop(next(iter(self._principals)))

    def clear(self) -> None:
        self._principals.clear()
        self._size_bytes = 0

    def _drop(self, key: str) -> None:
        principal = self._principals.pop(key, None)
        if principal is not None:
            self._size_bytes -= _size_bytes(principal)


def _size_bytes(principal: Principal) -> int:
    return PRINCIPAL_BYTES + COST_BYTES * principal.scope.filter.cost
