#!/bin/sh
# What the tests need of the system: a RabbitMQ and a Redis to start nodes of their own with, curl, wget, openssl,
# nginx, HAProxy, Caddy, jq, faketime, systemd-analyze, and a Chromium.
# Installs from Debian's packages what is missing, as root; says what is missing otherwise. Quick and silent
# when all is there. No service is started, and nothing is left changed that would keep others from starting.
set -eu

missing=""
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || missing="$missing rabbitmq-server"
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v curl >/dev/null || missing="$missing curl"
command -v wget >/dev/null || missing="$missing wget"
command -v openssl >/dev/null || missing="$missing openssl"
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx"
command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing="$missing haproxy"
command -v caddy >/dev/null || missing="$missing caddy"
command -v jq >/dev/null || missing="$missing jq"
command -v faketime >/dev/null || missing="$missing faketime"
command -v systemd-analyze >/dev/null || missing="$missing systemd" # only its tools are used
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
    missing="$missing chromium"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "tests/support/setup-system.sh: please install:$missing (as root on Debian: apt-get install --no-install-recommends$missing)" >&2
    exit 1
fi

# Debian starts a service it installs unless this policy forbids it (/usr/share/doc/init-system-helpers).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
