"""How users give a setting: the descriptions that the fields of ``Settings`` carry. Standard library only."""

from dataclasses import dataclass
from typing import Final

VARIABLE_PREFIX: Final = "GATEWAY_"
BROKER: Final = "Broker"
ADDRESS: Final = "Address"
ACCESS: Final = "Access and security"
STREAMS: Final = "Streams"
TASKS: Final = "Tasks and workers"
LOG: Final = "Log"
GROUPS: Final = (BROKER, ADDRESS, ACCESS, STREAMS, TASKS, LOG)
"""The headings of the settings, in the order of the documentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How users give a setting: by a flag, an environment variable, or a key of a TOML file.

    >>> Option(flag="keepalive", group=STREAMS, help="Send …").variables
    ('GATEWAY_KEEPALIVE',)

    Attributes:
        flag: the flag without dashes, which is the key in a file as well. A truth value also has ``no-…``.
        group: the heading of the setting in docs/configuration.md.
        help: what the setting does. Code is between backquotes.
        metavar: the kind or the unit of the value.
        minimum: the lowest value of a number.
        maximum: the highest value of a number.
        zero: what 0 means if it is allowed beside the numbers from ``minimum``.
        is_repeated: there may be several values.
        has_app_default: under ``celery -A proj gateway`` the default is that of the Celery app.
        variables: the environment variables, of which the first that is set counts. By default there
            is one, named after the flag.
    """

    flag: str
    group: str
    help: str
    metavar: str = ""
    minimum: float | None = None
    maximum: float | None = None
    zero: str = ""
    is_repeated: bool = False
    has_app_default: bool = False
    variables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.variables:
            name = VARIABLE_PREFIX + self.flag.upper().replace("-", "_")
            object.__setattr__(self, "variables", (name,))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSetting:
    """A setting without a flag: ``celery -A proj gateway`` takes it from the Celery app.

    Attributes:
        celery: the names of Celery's settings.
        help: what the setting does. Code is between backquotes.
    """

    celery: tuple[str, ...]
    help: str
