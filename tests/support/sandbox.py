"""The system calls that a systemd unit allows: `python -m tests.support.sandbox UNIT COMMAND…`.

It puts itself under the unit's NoNewPrivileges, SystemCallFilter, RestrictAddressFamilies and
MemoryDenyWriteExecute with libseccomp, as systemd does (src/shared/seccomp-util.c), and becomes the command.
What the names of groups stand for is asked of `systemd-analyze`. Needs no rights and no running systemd.
"""

import ctypes
import errno
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

LIBRARY = "libseccomp.so.2"
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
PR_SET_NO_NEW_PRIVS = 38
SHM_EXEC = 0o100000
FAMILIES = range(1, 46)  # AF_UNIX to AF_MCTP, the last that Linux has


class _Comparison(ctypes.Structure):
    """libseccomp's struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Filter:
    """One filter; of several that are loaded the strictest word counts."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL(LIBRARY, use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(default)))

    def add(self, action: int, name: str, *comparisons: _Comparison) -> None:
        """A system call that this kernel or machine does not have is passed over, as systemd does."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (_Comparison * len(comparisons))(*comparisons)
        code = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(comparisons), array
        )
        if code:
            raise OSError(-code, f"seccomp: {name}: {os.strerror(-code)}")

    def load(self) -> None:
        code = self._library.seccomp_load(self._context)
        if code:
            raise OSError(-code, f"seccomp: {os.strerror(-code)}")


def directives(unit: Path) -> dict[str, list[str]]:
    """What stands right of each `=` in a unit, in order."""
    values: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            values.setdefault(name.strip(), []).append(value.strip())
    return values


def confine(unit: Path) -> None:
    """Put this process, and all that it becomes, under the unit's limits."""
    said = directives(unit)
    assert said["NoNewPrivileges"] == ["yes"]
    filters = []
    if said["MemoryDenyWriteExecute"] == ["yes"]:
        filters.append(_no_writable_code())
    filters.append(
        _only_families({getattr(socket, name) for name in said["RestrictAddressFamilies"][0].split()})
    )
    number = getattr(errno, said["SystemCallErrorNumber"][0])
    filters.append(_only_calls(_calls(said["SystemCallFilter"]), ERRNO | number))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    for one in filters:
        one.load()


def _no_writable_code() -> _Filter:
    filter = _Filter(ALLOW)
    refuse = ERRNO | errno.EPERM
    both = mmap.PROT_EXEC | mmap.PROT_WRITE
    filter.add(refuse, "mmap", _Comparison(2, MASKED_EQUAL, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        filter.add(refuse, name, _Comparison(2, MASKED_EQUAL, mmap.PROT_EXEC, mmap.PROT_EXEC))
    filter.add(refuse, "shmat", _Comparison(2, MASKED_EQUAL, SHM_EXEC, SHM_EXEC))
    return filter


def _only_families(families: Iterable[int]) -> _Filter:
    filter = _Filter(ALLOW)
    for family in set(FAMILIES) - set(families):
        filter.add(ERRNO | errno.EAFNOSUPPORT, "socket", _Comparison(0, EQUAL, family, 0))
    return filter


def _only_calls(names: Iterable[str], otherwise: int) -> _Filter:
    filter = _Filter(otherwise)
    for name in names:
        filter.add(ALLOW, name)
    return filter


def _calls(lines: Sequence[str]) -> set[str]:
    """The names that some lines of SystemCallFilter leave; the first begins an allow-list."""
    assert not lines[0].startswith("~")
    left = _expand("@default")
    for line in lines:
        named = {name for word in line.removeprefix("~").split() for name in _expand(word)}
        left = left - named if line.startswith("~") else left | named
    return left


def _expand(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    done = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager", word], capture_output=True, text=True, check=True
    )
    members = [line.strip() for line in done.stdout.splitlines()[1:]]
    return {name for member in members if member and not member.startswith("#") for name in _expand(member)}


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
