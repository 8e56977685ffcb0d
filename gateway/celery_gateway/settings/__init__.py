"""The settings of a gateway, and how users give each of them. Imports the standard library only.

This is the only description of the settings. The options of the commands (``cli.options``) and
docs/configuration.md are generated from it. After a change run
``python -m celery_gateway.cli.configuration_page > docs/configuration.md``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar, get_type_hints

from celery_gateway.settings.access import AccessSettings
from celery_gateway.settings.option import (
    BROKER,
    GROUPS,
    LOG,
    STREAMS,
    TASKS,
    VARIABLE_PREFIX,
    AppSetting,
    Option,
)

__all__ = [
    "APP_SETTINGS",
    "DEFAULTS",
    "MIN_CLIENT_MEMORY_BYTES",
    "MIN_EVENT_BYTES",
    "OPTIONS",
    "VARIABLE_PREFIX",
    "AppSetting",
    "Option",
    "Settings",
]

MIN_EVENT_BYTES: Final = 2_000
"""The lowest limit of ``max_event_bytes`` but 0: Celery's short fields fit into it."""
MIN_CLIENT_MEMORY_BYTES: Final = 16 << 20
"""The lowest limit of ``client_memory_bytes``: a page of a snapshot for each of some clients fits into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(AccessSettings):
    """The settings of a gateway; their defaults are those of ``celery-gateway serve``.

    Each field is described by its ``Option`` or ``AppSetting``. Values are not checked here: the commands
    check theirs, and the parts of the gateway raise errors for what they cannot use.
    """

    broker: Annotated[
        str | Sequence[str],
        Option(
            flag="broker",
            group=BROKER,
            metavar="URL|NAME=URL",
            is_repeated=True,
            has_app_default=True,
            variables=("GATEWAY_BROKER", "CELERY_BROKER_URL"),
            help="URL of the broker, as in Celery. Repeat the option, or separate URLs with commas, to add "
            "addresses for failover. With names (`eu=amqp://…`) each name is a broker of its own, and its "
            "events have the name in the field `cluster`.",
        ),
    ] = "amqp://guest:guest@localhost:5672//"
    exchange: Annotated[
        str,
        Option(
            flag="exchange",
            group=BROKER,
            metavar="NAME",
            has_app_default=True,
            help="Exchange of the events (Celery's `event_exchange`).",
        ),
    ] = "celeryev"
    transport_options: Annotated[
        Mapping[str, Any],
        Option(
            flag="transport-option",
            group=BROKER,
            metavar="NAME=VALUE",
            is_repeated=True,
            has_app_default=True,
            variables=("GATEWAY_TRANSPORT_OPTIONS", "GATEWAY_TRANSPORT_OPTION"),
            help="Transport option for Redis, as in Celery's `broker_transport_options`: "
            "`master_name=mymaster`, `global_keyprefix=shop.`, `sentinel_kwargs.password=…`. Repeat it for "
            "more. In the environment separate them with spaces, or write a JSON object. In a file use the "
            "table `[transport_options]`.",
        ),
    ] = field(default_factory=dict)
    control: Annotated[
        bool,
        Option(
            flag="control",
            group=BROKER,
            help="Send remote control commands to workers: to enable task events where they are off, and to "
            "ask for the names of tasks in progress. No command changes a task.",
        ),
    ] = False
    queues: Annotated[
        Sequence[str],
        Option(
            flag="queues",
            group=BROKER,
            metavar="NAME|BROKER=NAME",
            is_repeated=True,
            help="Queue whose length `GET /queues` reports, such as `celery`; with named brokers "
            "`eu=celery` for one of them. Repeat it for more, or separate names with commas. By default: the "
            "queues of the events, and with `--control` those that workers consume from.",
        ),
    ] = ()
    keepalive_seconds: Annotated[
        float,
        Option(
            flag="keepalive",
            group=STREAMS,
            metavar="SECONDS",
            minimum=0.1,
            help="Send a keep-alive when a stream has been silent for about this time.",
        ),
    ] = 15.0
    slow_seconds: Annotated[
        float,
        Option(
            flag="slow-timeout",
            group=STREAMS,
            metavar="SECONDS",
            minimum=0.1,
            maximum=86_400,
            help="Close a stream or a response if its client has read nothing for this time.",
        ),
    ] = 60.0
    history_bytes: Annotated[
        int,
        Option(
            flag="history-bytes",
            group=STREAMS,
            metavar="BYTES",
            minimum=1,
            help="Maximum size of the history, from which slow clients read and clients resume.",
        ),
    ] = 64 << 20
    max_event_bytes: Annotated[
        int,
        Option(
            flag="max-event-bytes",
            group=STREAMS,
            metavar="BYTES",
            minimum=MIN_EVENT_BYTES,
            zero="no limit",
            help="Maximum length of an event on a stream. The longest texts of a longer event are cut, its "
            "field `truncated` lists them, and `GET /events/ID` returns the whole event. 0: no limit.",
        ),
    ] = 500_000
    client_memory_bytes: Annotated[
        int,
        Option(
            flag="client-memory",
            group=STREAMS,
            metavar="BYTES",
            minimum=MIN_CLIENT_MEMORY_BYTES,
            help="Maximum memory for all clients together: requests, responses, snapshots, and data that "
            "slow clients have not read. A client that is alone may use half of it. A client above its share "
            "gets 503, or its stream ends with `gateway-close` and the reason `limit`.",
        ),
    ] = 256 << 20
    max_tasks: Annotated[
        int,
        Option(
            flag="max-tasks",
            group=TASKS,
            metavar="NUMBER",
            minimum=1,
            help="Maximum number of task records, which add names to events and answer requests for state.",
        ),
    ] = 100_000
    worker_timeout_seconds: Annotated[
        float,
        Option(
            flag="worker-timeout",
            group=TASKS,
            metavar="SECONDS",
            minimum=1.0,
            help="Silence after which the gateway treats a worker as gone and its tasks as lost.",
        ),
    ] = 300.0
    lost_grace_seconds: Annotated[
        float,
        Option(
            flag="lost-grace",
            group=TASKS,
            metavar="SECONDS",
            minimum=0.0,
            help="How long a stream with `until=ready` stays open after its task is lost: the broker may "
            "deliver a task with `acks_late` again.",
        ),
    ] = 60.0
    wait_known_seconds: Annotated[
        float,
        Option(
            flag="wait-known",
            group=TASKS,
            metavar="SECONDS",
            minimum=0.0,
            help="How long a stream with `until=ready` waits for the first event of an unknown task or "
            "workflow.",
        ),
    ] = 30.0
    log: Annotated[
        str,
        Option(
            flag="log",
            group=LOG,
            metavar="memory|rabbitmq|redis|URL",
            help="Where the stream is kept. `memory`: in this process; a restart begins anew. `rabbitmq` or "
            "`redis`: in the (first) broker. `amqp://…` or `redis://…`: on that server. Gateways with the "
            "same log share one stream: clients resume at any of them, also after restarts.",
        ),
    ] = "memory"
    log_age_seconds: Annotated[
        float,
        Option(
            flag="log-age",
            group=LOG,
            metavar="SECONDS",
            minimum=60.0,
            help="How long a shared log keeps its entries.",
        ),
    ] = 86_400.0
    log_bytes: Annotated[
        int,
        Option(
            flag="log-bytes",
            group=LOG,
            metavar="BYTES",
            minimum=1 << 20,
            help="Maximum size of a shared log.",
        ),
    ] = 1 << 30
    workers: Annotated[
        int,
        Option(
            flag="workers",
            group=LOG,
            metavar="NUMBER",
            minimum=1,
            maximum=256,
            help="Number of gateway processes that `serve` runs on the address. More than one needs a shared "
            "log (`--log`). Each process has its own connections to the broker, history and tables, and the "
            "limits on clients and the quotas hold in each of them.",
        ),
    ] = 1
    tls: Annotated[
        bool | Mapping[str, Any],
        AppSetting(celery=("broker_use_ssl",), help="Options of TLS connections to the broker."),
    ] = False
    login_method: Annotated[
        str | None,
        AppSetting(celery=("broker_login_method",), help="How the gateway logs in to an AMQP broker."),
    ] = None
    queue_prefix: Annotated[
        str,
        AppSetting(
            celery=("event_queue_prefix",),
            help="Beginning of the names of the gateway's own queues, before a dot.",
        ),
    ] = "celery-gateway"
    control_exchange: Annotated[
        str,
        AppSetting(celery=("control_exchange",), help="Exchange of remote control commands."),
    ] = "celery"
    accept: Annotated[
        tuple[str, ...] | None,
        AppSetting(
            celery=("event_serializer", "accept_content"),
            help="Content types of the events that are read. `None`: all that the gateway can read (JSON and "
            "msgpack).",
        ),
    ] = None


_Description = TypeVar("_Description", Option, AppSetting)


def _described_by(kind: type[_Description]) -> dict[str, _Description]:
    """Return the descriptions of one kind by the names of their fields, in the order of the fields."""
    hints = get_type_hints(Settings, include_extras=True)
    return {
        name: description
        for name, hint in hints.items()
        for description in hint.__metadata__
        if isinstance(description, kind)
    }


DEFAULTS: Final = Settings()
OPTIONS: Final[Mapping[str, Option]] = dict(
    sorted(_described_by(Option).items(), key=lambda item: GROUPS.index(item[1].group))
)
APP_SETTINGS: Final[Mapping[str, AppSetting]] = _described_by(AppSetting)
