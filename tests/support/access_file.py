"""An access file (`--auth`) that tests change while its gateway runs."""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from celery_gateway import tokens

ISSUER = "https://tests.example"
SECRET_FILE = "tests.secret"


class AccessFile:
    """The file in a folder: one issuer of JSON Web Tokens, without leeway, and static tokens.

    `issued`: all tokens so far.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "access.toml"
        self.issued: list[str] = []
        self._secret = secrets.token_urlsafe(48)
        self._general: Mapping[str, int] = {}
        self._static: dict[str, tuple[str, Sequence[str], Mapping[str, int]]] = {}
        secret_file = folder / SECRET_FILE
        secret_file.touch(0o600)
        secret_file.write_text(self._secret)
        self._write()

    def sign(self, seconds: float = 600, **scope: Any) -> str:
        """Return a JSON Web Token; `scope`: arguments of `tokens.sign`."""
        self.issued.append(tokens.sign(self._secret, issuer=ISSUER, minutes=seconds / 60, **scope))
        return self.issued[-1]

    def create(self, name: str, may: Sequence[str], **quota: int) -> str:
        """Add a static token for all events, and return it; `quota`: its own limits."""
        token = f"cgw_{secrets.token_urlsafe(32)}"
        self.issued.append(token)
        self._static[name] = hashlib.sha256(token.encode()).hexdigest(), may, quota
        self._write()
        return token

    def set_general_quota(self, **quota: int) -> None:
        """Replace the limits of all principals."""
        self._general = quota
        self._write()

    def set_quota(self, name: str, **quota: int) -> None:
        """Replace the limits of a static token: the gateway notices within about a second."""
        self._static[name] = (*self._static[name][:2], quota)
        self._write()

    def remove(self, name: str) -> None:
        """Remove a static token: the gateway notices within about a second."""
        del self._static[name]
        self._write()

    def _write(self) -> None:
        lines = ["[quota]", *(f"{key} = {value}" for key, value in self._general.items())]
        lines += ["[issuers.tests]", f'issuer = "{ISSUER}"', 'algorithm = "HS256"']
        lines += [f'secret_file = "{SECRET_FILE}"', "leeway_seconds = 0"]
        for name, (digest, may, quota) in self._static.items():
            scope = f"scope = {{ may = {json.dumps(list(may))} }}"
            lines += [f"[tokens.{name}]", f'hash = "sha256:{digest}"', scope]
            if quota:
                lines.append(f"quota = {{ {', '.join(f'{key} = {value}' for key, value in quota.items())} }}")
        new = self.path.with_suffix(".new")
        new.write_text("\n".join([*lines, ""]))
        new.replace(self.path)
