"""Add tables ``[tokens.NAME]`` to the access file, and remove them. All other text stays as it is.

The text is changed, not a parsed document: libraries that keep comments (tomlkit) count a comment above a
table to the table before it, and remove both. Each new text is parsed, and must have exactly the expected
change; else nothing is written.
"""

import fcntl
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from celery_gateway.access.static_tokens import hash_text
from celery_gateway.errors import GatewayError

NEW_FILE_MODE: Final = 0o600
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_HEADER: Final = re.compile(r"\s*\[[^\[]")
_INTRODUCTION: Final = "# Who may read what: docs/security.md. The gateway reads changes without a restart.\n"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time change the file. The lock is on its folder, since the file is replaced."""
    try:
        folder = os.open(path.resolve().parent, os.O_RDONLY)
    except OSError as error:
        raise GatewayError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def add(path: Path, name: str, token: str, scope: dict[str, Any], expires: str | None) -> None:
    """Append a table with the hash of a token. The file is created if it is missing.

    Args:
        expires: a time or date as TOML has it; ``None`` for a token that does not expire.

    Raises:
        GatewayError: the file cannot be read or written, or already has a token with this name.
    """
    with _locked(path):
        _add(path, name, token, scope, expires)


def _add(path: Path, name: str, token: str, scope: dict[str, Any], expires: str | None) -> None:
    text = _text(path) if path.exists() else _INTRODUCTION
    tokens = _tokens(path, text)
    if name in tokens:
        raise GatewayError(
            f"{path}: there is already a token {name!r}. Choose another name, or remove it: "
            f"celery-gateway token remove {name} --auth {path}"
        )
    lines = [f"[tokens.{_key(name)}]", f'hash = "{hash_text(token)}"', f"scope = {_inline(scope)}"]
    if expires is not None:
        lines.append(f"expires = {expires}")
    table = "\n".join(lines) + "\n"
    new_text = f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}\n{table}"
    try:
        expected = _parsed(text)
        expected.setdefault("tokens", {})[name] = tomllib.loads(table)["tokens"][name]
        is_as_expected = tomllib.loads(new_text) == expected
    except (tomllib.TOMLDecodeError, AttributeError, TypeError):
        is_as_expected = False
    if not is_as_expected:
        raise GatewayError(f"{path}: the table cannot be appended to this file. Add it by hand:\n{table}")
    _write(path, new_text)


def remove(path: Path, name: str) -> None:
    """Remove the table of a token.

    Raises:
        GatewayError: the file cannot be read or written, or has no such token.
    """
    with _locked(path):
        _remove(path, name)


def _remove(path: Path, name: str) -> None:
    text = _text(path)
    tokens = _tokens(path, text)
    if name not in tokens:
        known = ", ".join(sorted(tokens)) or "none"
        raise GatewayError(f"{path}: there is no token {name!r}; the tokens are: {known}")
    new_text = _without(text, name)
    expected = _parsed(text)
    del expected["tokens"][name]
    try:
        found = tomllib.loads(new_text)
    except tomllib.TOMLDecodeError:
        found = {}
    if {"tokens": {}} | found != expected:
        raise GatewayError(
            f"{path}: the token {name!r} is not written as a table [tokens.{_key(name)}] of its own. Remove "
            "it by hand"
        )
    _write(path, new_text)


def scopes(path: Path) -> dict[str, Any]:
    """Return the scopes of the tokens by name, as the file has them. Raises GatewayError as ``add``."""
    return {name: table.get("scope", {}) for name, table in _tokens(path, _text(path)).items()}


def _without(text: str, name: str) -> str:
    """Return the text without the lines of a table and of those inside it.

    The lines end at the next header; comments above that header stay.
    """
    kept: list[str] = []
    removed: list[str] = []
    is_removing = False
    for line in text.splitlines(keepends=True):
        header = _header(line)
        if header is not None:
            kept += _comments_below(removed)
            removed = []
            is_removing = header[:2] == ["tokens", name]
        (removed if is_removing else kept).append(line)
    kept += _comments_below(removed)
    return "".join(kept)


def _comments_below(removed: list[str]) -> list[str]:
    """Return the comments at the end of the lines of a table that belong to what follows the table."""
    end = len(removed)
    while end and (not removed[end - 1].strip() or removed[end - 1].lstrip().startswith("#")):
        end -= 1
    below = removed[end:]
    if any(not line.strip() for line in below):  # comments before a blank line belong to the table
        while below and below[0].strip():
            below.pop(0)
        while below and not below[0].strip():
            below.pop(0)
    return below


def _header(line: str) -> list[str] | None:
    """Return the names in the header of a table; ``None`` for another line."""
    if not _HEADER.match(line):
        return None
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    names = []
    while isinstance(value, dict) and value:
        ((name, value),) = value.items()
        names.append(name)
    return names


def _tokens(path: Path, text: str) -> dict[str, Any]:
    try:
        tokens = tomllib.loads(text).get("tokens", {})
    except tomllib.TOMLDecodeError as error:
        raise GatewayError(f"{path}: invalid TOML: {error}") from None
    if not isinstance(tokens, dict) or not all(isinstance(table, dict) for table in tokens.values()):
        raise GatewayError(f"{path}: invalid tokens: it must have tables [tokens.NAME]")
    return tokens


def _parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # line ends stay as they are
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, with the mode and the owner that it has."""
    target = path.resolve()  # a link stays a link
    temporary = ""
    try:
        number, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with open(number, "wb") as file:
            if target.exists():
                status = target.stat()
                os.fchmod(number, status.st_mode & 0o7777)
                with suppress(PermissionError):
                    os.fchown(number, status.st_uid, status.st_gid)
            else:
                os.fchmod(number, NEW_FILE_MODE)
            file.write(text.encode())
            file.flush()
            os.fsync(number)
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise GatewayError(f"cannot write {path}: {error.strerror}") from None


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _inline(value: Any) -> str:
    """Return a scope in TOML, on one line.

    >>> print(_inline({"any": [{"name": ["shop.*"]}], "may": ["events"]}))
    { any = [{ name = ["shop.*"] }], may = ["events"] }
    """
    if isinstance(value, dict):
        pairs = ", ".join(f"{_key(key)} = {_inline(each)}" for key, each in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value, ensure_ascii=False)
