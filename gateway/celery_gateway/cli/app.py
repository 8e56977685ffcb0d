"""``celery -A proj gateway``: a gateway that takes its broker, and how to speak to it, from a Celery app.

Celery loads this module with each of its own commands, the workers' included (it is an entry point of the
group ``celery.commands``). So it imports nothing but what they have imported already and our options; the
server is loaded when the command runs.
"""

from collections.abc import Iterable
from dataclasses import fields
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import click
from celery.bin.base import CeleryCommand, handle_preload_options
from celery.exceptions import ImproperlyConfigured
from kombu.serialization import registry
from kombu.utils.url import as_url, url_to_parts

from gateway.cli.options import serving
from gateway.cli.serve import run
from gateway.errors import GatewayError, SourceError
from gateway.settings import DEFAULTS, Settings

_JSON = "application/json"
_CELERYS_QUEUE_PREFIX = "celeryev"
_READABLE = frozenset({_JSON, "application/x-msgpack"})
"""What a gateway decodes, whatever an app accepts: the other serializers can run code, or are slow."""


@click.command(cls=CeleryCommand)
@partial(serving, of_app=True)
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator]  # Celery is untyped
def gateway(context: click.Context, **options: Any) -> None:
    """Stream the app's events live: to browsers, services and curl.

    The broker, TLS, the transport's options and the event exchange are those of the app. Each option can also
    be given in the environment, as GATEWAY_PORT for --port, or in a TOML file (--config). The command line
    goes before the environment, that before the file, and that before the app.

    \b
    Examples:
      celery -A proj gateway
      celery -A proj gateway --port 9000 --control
      GATEWAY_HOST=0.0.0.0 celery -A proj gateway --root-path /celery
    """
    app = context.obj.app
    names = {field.name for field in fields(Settings)}
    given = {name: value for name, value in options.items() if name in names and value not in (None, ())}
    cautions = []
    try:
        if "broker" not in given:
            given["broker"] = urls_of(app)
            if context.parent is not None and not context.parent.params.get("app"):
                cautions.append("no app is named (celery -A proj gateway): the broker is Celery's default")
        settings = Settings(**{**settings_of(app), **given})
        cautions += _cautions(app.conf, settings)
        run(settings, cautions)
    except (GatewayError, ImproperlyConfigured) as error:
        raise click.ClickException(str(error)) from None


for _option in gateway.params:
    # Celery's own would be CELERY_GATEWAY_PORT, which Kubernetes sets for a Service named celery-gateway, to
    # something else.
    _option.allow_from_autoenv = False


def settings_of(app: Any) -> dict[str, Any]:
    """Return what a Celery app knows of a gateway's ``Settings`` but for the broker's URLs, by their names.

    Raises:
        ImproperlyConfigured: Celery cannot read the app's configuration.
    """
    conf = app.conf
    accepted = {_content_type(name) for name in (conf.event_serializer, *conf.accept_content)}
    return {
        "tls": conf.broker_use_ssl or False,
        "login_method": conf.broker_login_method,
        "transport_options": dict(conf.broker_transport_options or {}),
        "queue_prefix": _queue_prefix(conf.event_queue_prefix),
        "exchange": conf.event_exchange,
        "control_exchange": conf.control_exchange,
        # Celery's own receivers take the event_serializer and JSON (celery/events/receiver.py).
        "accept": tuple(sorted(accepted & _READABLE | {_JSON})),
    }


def _queue_prefix(prefix: str) -> str:
    """Return what our queues' names begin with: the app's prefix goes before ours, if it has one of its own.

    So they can be told from those of Celery's receivers, and still lie where the app may make queues.
    """
    ours = DEFAULTS.queue_prefix
    return ours if prefix == _CELERYS_QUEUE_PREFIX else f"{prefix}.{ours}"


def urls_of(app: Any) -> list[str]:
    """Return the broker's URLs as Celery completes them (celery/app/base.py, kombu/connection.py).

    The settings broker_user, _password, _vhost, _port and _transport, which are older than URLs, stand for
    what is missing in them.

    Raises:
        SourceError: the password is a function.
        ImproperlyConfigured: Celery cannot read the app's configuration.
    """
    conf = app.conf
    urls = conf.broker_read_url or "localhost"
    if callable(conf.broker_password):
        raise SourceError("broker_password is a function, which the gateway cannot use: try --broker URL")
    return [
        _completed(url if "://" in url else f"{conf.broker_transport or 'amqp'}://{url}", conf)
        for text in ([urls] if isinstance(urls, str) else urls)
        for url in text.split(";")
    ]


def _completed(url: str, conf: Any) -> str:
    vhost = (conf.broker_transport_options or {}).get("virtual_host")
    if not (vhost or conf.broker_user or conf.broker_password or conf.broker_vhost or conf.broker_port):
        return url
    try:
        scheme, host, port, user, password, path, query = url_to_parts(url)
    except ValueError:  # which the source puts into words
        return url
    completed = as_url(
        scheme,
        host,
        port or conf.broker_port,
        user or conf.broker_user,
        password or conf.broker_password,
        quote(vhost or path or conf.broker_vhost or "", safe=""),
    )
    return f"{completed}?{urlencode(query)}" if query else str(completed)


def _cautions(conf: Any, settings: Settings) -> Iterable[str]:
    """Yield what the app is set to that the gateway will not do."""
    if _content_type(conf.event_serializer) not in _READABLE:
        yield (
            f"the app's event_serializer is {conf.event_serializer}, which is never read here: its events "
            "will be refused; set event_serializer = 'json'"
        )
    accepted = {_content_type(name) for name in conf.accept_content}
    if not accepted & _READABLE:
        yield (
            f"the app accepts {', '.join(map(str, conf.accept_content))} (accept_content), which is never "
            "read here: JSON events are"
        )
    if settings.control and _JSON not in accepted:
        yield "--control speaks JSON, which the app's workers do not accept: add 'json' to accept_content"
    elif settings.control and _content_type(conf.task_serializer) != _JSON:
        yield (
            f"the workers' answers to --control come in {conf.task_serializer} (task_serializer) and are not "
            "read: names of tasks under way stay unknown"
        )


def _content_type(serializer: str) -> str:
    """Return the content type of one of kombu's serializers; of a content type itself."""
    return str(registry.name_to_type.get(serializer, serializer))
