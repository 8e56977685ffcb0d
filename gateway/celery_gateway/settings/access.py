"""The settings of the address, and of who may connect and read what. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from celery_gateway.settings.option import ACCESS, ADDRESS, Option


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """The part of ``Settings`` with the address and the access; see there."""

    host: Annotated[
        str,
        Option(
            flag="host",
            group=ADDRESS,
            metavar="ADDRESS",
            help="Address to listen on; `0.0.0.0` for all interfaces. An address that other machines can "
            "reach requires `--auth`, or `--insecure`.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Option(
            flag="port",
            group=ADDRESS,
            metavar="PORT",
            minimum=0,
            maximum=65_535,
            help="Port to listen on; 0 for any free port.",
        ),
    ] = 8555
    root_path: Annotated[
        str,
        Option(
            flag="root-path",
            group=ADDRESS,
            metavar="PATH",
            help="Path of the gateway behind a proxy, such as `/celery`, whether the proxy strips it or not.",
        ),
    ] = ""
    public_url: Annotated[
        str,
        Option(
            flag="public-url",
            group=ADDRESS,
            metavar="URL",
            help="URL at which users reach the gateway if it differs from the gateway's own address, such as "
            "`https://events.example/celery` behind a proxy. Its host and origin are allowed.",
        ),
    ] = ""
    allow_hosts: Annotated[
        Sequence[str],
        Option(
            flag="allow-host",
            group=ACCESS,
            metavar="HOST",
            is_repeated=True,
            help="Host name that requests may address, such as `gateway` (a Compose service), `.example.com` "
            "for all names below it, or `*` for every host. Repeat it for more (in the environment: "
            "separated by spaces). Always allowed: the address of `--host`, IP addresses, `localhost`, the "
            "host name of this machine, and the host of `--public-url`. Requests to other hosts get 403.",
        ),
    ] = ()
    allow_origins: Annotated[
        Sequence[str],
        Option(
            flag="allow-origin",
            group=ACCESS,
            metavar="ORIGIN",
            is_repeated=True,
            help="Web site whose pages may read the streams, such as `https://shop.example`, or `*` for all. "
            "Repeat it for more (in the environment: separated by spaces). Pages of other origins get 403.",
        ),
    ] = ()
    verbose_health: Annotated[
        bool,
        Option(
            flag="verbose-health",
            group=ACCESS,
            help="Give the full reasons in `/readyz`, `/healthz` and `gateway-status`, with the address, "
            "vhost and user of the broker. By default clients get a short code, and the log has the reason.",
        ),
    ] = False
    auth: Annotated[
        str,
        Option(
            flag="auth",
            group=ACCESS,
            metavar="FILE",
            help="TOML file of the tokens and token issuers that are accepted (docs/security.md). Each "
            "request then needs a token, except health checks. Without this option there is no "
            "authentication.",
        ),
    ] = ""
    insecure: Annotated[
        bool,
        Option(
            flag="insecure",
            group=ACCESS,
            help="Listen on an address that other machines can reach although there is no authentication: "
            "everyone who can connect can read all events.",
        ),
    ] = False
    allow: Annotated[
        Sequence[str],
        Option(
            flag="allow",
            group=ACCESS,
            metavar="ACTION",
            is_repeated=True,
            help="Action that clients may request: `revoke` (tasks that are not ready), or "
            "`revoke,terminate` (with the process of a running task). Repeat it for both, or separate them "
            "with a comma. With `--auth` a token also needs the action in its `may`. Without `--auth` "
            "everyone who can connect can do it. By default none is allowed.",
        ),
    ] = ()
    trusted_proxies: Annotated[
        Sequence[str],
        Option(
            flag="trusted-proxies",
            group=ACCESS,
            metavar="ADDRESS|NETWORK",
            is_repeated=True,
            help="Proxy whose `X-Forwarded-For` names the client, such as `10.0.0.7` or `10.0.0.0/8`; its "
            "header with the user is read if the file of `--auth` has a table `[proxy]`. Repeat it for more "
            "(in the environment: separated by spaces). The headers of others are ignored.",
        ),
    ] = ()
    hide: Annotated[
        Sequence[str],
        Option(
            flag="hide",
            group=ACCESS,
            metavar="FIELD",
            is_repeated=True,
            help="Field of events to remove on arrival, such as `args`, `kwargs`, `result`, `exception` or "
            "`traceback`: no client receives it, and the gateway does not keep it. Repeat it for more, or "
            "separate fields with commas.",
        ),
    ] = ()
    redact: Annotated[
        bool,
        Option(
            flag="redact",
            group=ACCESS,
            help="Replace the values of secrets, such as `password` or `api_key`, in the arguments, results, "
            "exceptions and tracebacks of tasks and in custom fields. `--redact-key` adds names.",
        ),
    ] = True
    redact_keys: Annotated[
        Sequence[str],
        Option(
            flag="redact-key",
            group=ACCESS,
            metavar="NAME",
            is_repeated=True,
            help="Name whose values are redacted as well, such as `iban`. Repeat it for more, or separate "
            "names with commas. A longer name that ends with it counts, too: `customer_iban`.",
        ),
    ] = ()
    max_connection_age_seconds: Annotated[
        float,
        Option(
            flag="max-connection-age",
            group=ACCESS,
            metavar="SECONDS",
            minimum=1.0,
            maximum=31_536_000,
            zero="no limit",
            help="End each stream after about this time (up to a tenth less). The client resumes where it "
            "was, so that connections spread over new replicas. 0: no limit.",
        ),
    ] = 0.0
    tls_cert: Annotated[
        str,
        Option(
            flag="tls-cert",
            group=ACCESS,
            metavar="FILE",
            help="Certificate chain in PEM, to serve HTTPS. A new certificate in the file is used for new "
            "connections, without a restart.",
        ),
    ] = ""
    tls_key: Annotated[
        str,
        Option(
            flag="tls-key",
            group=ACCESS,
            metavar="FILE",
            help="Private key of `--tls-cert` in PEM; by default it is in the same file.",
        ),
    ] = ""
    hsts_seconds: Annotated[
        int,
        Option(
            flag="hsts",
            group=ACCESS,
            metavar="SECONDS",
            minimum=1,
            zero="no header",
            help="Send `Strict-Transport-Security` with this `max-age`: browsers then use only HTTPS for "
            "this host. 0: no header.",
        ),
    ] = 0
