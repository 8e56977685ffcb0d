"""Users, permissions and vhosts of a RabbitMQ node, without rabbitmqctl, whose start takes seconds."""

import json

from tests.support.rabbitmq import RabbitMQ


def add_user(node: RabbitMQ, name: str, password: str) -> None:
    """Add a user without permissions."""
    _call(node, "rabbit_auth_backend_internal:add_user", name, password)


def delete_user(node: RabbitMQ, name: str) -> None:
    _call(node, "rabbit_auth_backend_internal:delete_user", name)


def change_password(node: RabbitMQ, name: str, password: str) -> None:
    _call(node, "rabbit_auth_backend_internal:change_password", name, password)


def set_permissions(node: RabbitMQ, vhost: str, user: str, configure: str, write: str, read: str) -> None:
    """Replace the permissions of a user in a vhost."""
    _call(node, "rabbit_auth_backend_internal:set_permissions", user, vhost, configure, write, read)


def clear_permissions(node: RabbitMQ, vhost: str, user: str) -> None:
    """Take away the access to a vhost."""
    _call(node, "rabbit_auth_backend_internal:clear_permissions", user, vhost)


def delete_vhost(node: RabbitMQ, name: str) -> None:
    """Delete a vhost; the broker closes its connections."""
    _call(node, "rabbit_vhost:delete", name)


def _call(node: RabbitMQ, function: str, *texts: str) -> None:
    arguments = ", ".join(f"<<{json.dumps(text, ensure_ascii=False)}/utf8>>" for text in (*texts, "tests"))
    node.eval(f"ok = {function}({arguments})")
