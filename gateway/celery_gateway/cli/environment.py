"""The environment variables of the commands: warnings of misspelled ones, and of those that Kubernetes sets.

Kubernetes sets variables in each pod for each Service, unless the pod has ``enableServiceLinks: false``.
Those of a Service named ``gateway`` begin with ``GATEWAY_`` too:
https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping

import click

from celery_gateway.settings import VARIABLE_PREFIX

_SERVICE_LINK = re.compile(
    r"GATEWAY_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)
_SIMILARITY = 0.8
"""Minimum for a misspelling (``PRT`` and ``PORT`` have 0.86). Other gateways have variables too."""


class PortOption(click.Option):
    """An option whose variable is ignored if Kubernetes has set it to the address of a Service."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        return None if value is not None and _SERVICE_ADDRESS.match(value) else value


def variables(command: click.Command) -> set[str]:
    """Return the names of the variables of a command's options, or of those of a group's commands."""
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    return {
        name
        for each in commands
        for option in each.params
        for name in ([option.envvar] if isinstance(option.envvar, str) else option.envvar or ())
        if name.startswith(VARIABLE_PREFIX)
    }


def variable_warnings(
    environment: Mapping[str, str], known: Iterable[str], used: Iterable[str] | None = None
) -> Iterator[str]:
    """Yield a warning for each variable that was probably meant for the gateway and has no effect.

    Args:
        environment: names and values.
        known: the names of the variables of all commands.
        used: the names of the variables that this command reads; all of them by default.

    >>> list(variable_warnings({"GATEWAY_PRT": "1"}, {"GATEWAY_PORT"}))
    ['unknown environment variable GATEWAY_PRT: did you mean GATEWAY_PORT? It has no effect']
    """
    known = set(known)
    for name in sorted(environment):
        if not name.startswith(VARIABLE_PREFIX):
            continue
        value = environment[name]
        if name in known:
            if (used is None or name in used) and name == "GATEWAY_PORT" and _SERVICE_ADDRESS.match(value):
                yield (
                    f"{name}={value!r} is ignored: it is not a port number but the address of a Kubernetes "
                    "Service named gateway. Set enableServiceLinks: false in the pod, or use --port"
                )
        elif not _is_service_link(name, value) and (nearest := _nearest(name, known)):
            yield f"unknown environment variable {name}: did you mean {nearest}? It has no effect"


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_ADDRESS.match(value)))


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known variable whose name was misspelled, shortened or extended; else ``None``."""
    ours = {each.removeprefix(VARIABLE_PREFIX): each for each in known}
    given = name.removeprefix(VARIABLE_PREFIX).upper()
    if (singular := given.removesuffix("S")) in ours:  # GATEWAY_HOSTS is nearer to GATEWAY_HSTS by letters
        return ours[singular]
    for each in sorted(ours, key=len, reverse=True):
        if given.startswith(f"{each}_") or each.startswith(f"{given}_"):
            return ours[each]
    (*close,) = difflib.get_close_matches(given, ours, n=1, cutoff=_SIMILARITY)
    return ours[close[0]] if close else None
