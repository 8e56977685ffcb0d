"""``celery -A proj gateway``: a gateway that takes the broker and its settings from a Celery app.

Celery imports ``cli.plugin`` with each of its commands; that imports this module when the command is called.
The server is imported when the command runs.
"""

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import click
from celery.bin.base import CeleryCommand, handle_preload_options
from celery.exceptions import ImproperlyConfigured
from kombu.serialization import registry
from kombu.utils.url import as_url, url_to_parts

from celery_gateway.cli import environment
from celery_gateway.cli.options import with_all_options
from celery_gateway.cli.serve import run
from celery_gateway.errors import GatewayError, SourceError
from celery_gateway.settings import DEFAULTS, OPTIONS, Settings

_JSON = "application/json"
_CELERYS_QUEUE_PREFIX = "celeryev"
_READABLE = frozenset({_JSON, "application/x-msgpack"})
"""Content types that a gateway decodes, whatever an app accepts. Others can run code, or are slow."""


@click.command(cls=CeleryCommand)
@with_all_options(of_app=True)
@click.pass_context
@handle_preload_options  # type: ignore[untyped-decorator]  # Celery is untyped
def gateway(context: click.Context, **options: Any) -> None:
    """Stream the app's events live: to browsers, services and curl.

    The broker, TLS, the transport options and the event exchange are those of the app; --transport-option
    adds to its broker_transport_options. Each option is also an environment variable, such as
    GATEWAY_PORT for --port, and a key of the TOML file of --config. The command line has precedence over the
    environment, the environment over the file, and the file over the app.

    \b
    Examples:
      celery -A proj gateway
      celery -A proj gateway --port 9000 --control
      celery -A proj gateway --host 0.0.0.0 --auth auth.toml --tls-cert tls.pem
    """
    is_app_given = context.parent is None or bool(context.parent.params.get("app"))
    try:
        settings, warnings = resolve(context.obj.app, options, is_app_given)
        warnings += environment.variable_warnings(os.environ, environment.variables(context.command))
        run(settings, warnings)
    except (GatewayError, ImproperlyConfigured) as error:
        raise click.ClickException(str(error)) from None


for _option in gateway.params:
    # Celery would read CELERY_GATEWAY_PORT as well, which Kubernetes sets to an address if a Service has the
    # name celery-gateway.
    _option.allow_from_autoenv = False


def resolve(app: Any, options: dict[str, Any], is_app_given: bool) -> tuple[Settings, list[str]]:
    """Combine the settings of an app with the options of the command, which have precedence.

    Args:
        app: a Celery app.
        options: values by the names of settings; ``None`` and empty ones are not given.
        is_app_given: the user has named the app.

    Returns:
        The settings, and warnings of what the gateway does not support.

    Raises:
        SourceError: the broker of the app cannot be used.
        ImproperlyConfigured: Celery cannot read the app's configuration.
    """
    given = {name: options[name] for name in OPTIONS if options.get(name) not in (None, (), {})}
    warnings = []
    if "broker" not in given:
        given["broker"] = urls_of(app)
        if not is_app_given:
            warnings.append("no app is given (celery -A proj gateway): using Celery's default broker")
    of_app = settings_of(app)
    if "transport_options" in given:
        given["transport_options"] = {**of_app["transport_options"], **given["transport_options"]}
    settings = Settings(**{**of_app, **given})
    return settings, [*warnings, *_warnings(app.conf, settings)]


def settings_of(app: Any) -> dict[str, Any]:
    """Return the ``Settings`` that a Celery app has, except for the URLs of the broker.

    Returns:
        Values by the names of fields.

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
    """Return the beginning of the names of the gateway's queues: a prefix of the app, and the default.

    So they differ from the queues of Celery's receivers, and the app's permissions for queues apply to them.
    """
    ours = DEFAULTS.queue_prefix
    return ours if prefix == _CELERYS_QUEUE_PREFIX else f"{prefix}.{ours}"


def urls_of(app: Any) -> list[str]:
    """Return the URLs of the broker as Celery completes them (celery/app/base.py, kombu/connection.py).

    Parts that are missing in a URL come from the settings broker_user, _password, _vhost, _port and
    _transport, which are older than URLs.

    Raises:
        SourceError: the password is a function.
        ImproperlyConfigured: Celery cannot read the app's configuration.
    """
    conf = app.conf
    urls = conf.broker_read_url or "localhost"
    if callable(conf.broker_password):
        raise SourceError("broker_password is a function, which is not supported: give the URL with --broker")
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
    except ValueError:  # the source reports it
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


def _warnings(conf: Any, settings: Settings) -> Iterable[str]:
    """Yield a warning for each setting of the app that the gateway does not support."""
    if _content_type(conf.event_serializer) not in _READABLE:
        yield (
            f"the app's event_serializer is {conf.event_serializer}, which the gateway does not read: it "
            "refuses the app's events. Set event_serializer = 'json'"
        )
    accepted = {_content_type(name) for name in conf.accept_content}
    if not accepted & _READABLE:
        yield (
            f"the app accepts only {', '.join(map(str, conf.accept_content))} (accept_content), which the "
            "gateway does not read: it reads JSON events"
        )
    if settings.control and _JSON not in accepted:
        yield "--control sends JSON, which the app's workers do not accept: add 'json' to accept_content"
    elif settings.control and _content_type(conf.task_serializer) != _JSON:
        yield (
            f"workers reply to --control in {conf.task_serializer} (task_serializer), which the gateway does "
            "not read: the names of tasks in progress stay unknown"
        )


def _content_type(serializer: str) -> str:
    """Return the content type of a serializer of kombu; a content type stays as it is."""
    return str(registry.name_to_type.get(serializer, serializer))
