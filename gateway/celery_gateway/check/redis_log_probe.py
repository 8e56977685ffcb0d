"""The probe of the Redis that keeps a shared log. It changes nothing.

Commands that write are tried in a form that does nothing: ``XADD … NOMKSTREAM`` to a key that does not
exist, ``XTRIM … MINID 0``. Redis checks the permission first.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from celery_gateway.broker.permissions import redis_cli
from celery_gateway.broker.redis_channels import key_prefix
from celery_gateway.broker.urls import Broker
from celery_gateway.check.log_places import LogSettings
from celery_gateway.check.log_report import size_text
from celery_gateway.check.log_step import log_failed
from celery_gateway.check.step import Step, found, passed
from celery_gateway.log.engine import LogError
from celery_gateway.log.redis_clients import RedisClients


async def redis_log_steps(settings: LogSettings, server: Broker, exchange: str) -> AsyncIterator[Step]:
    """Give the steps of the server of a log: version, permissions and memory, up to the first failure."""
    key = f"{key_prefix(server.access.transport_options)}{settings.name}"
    clients = RedisClients(server.urls[0], server.access, key)
    client = clients.client()
    try:
        info = await _info(clients, client)
        version = str(info.get("redis_version", "(unknown version)"))
        await _try_permissions(clients, client, key)
        yield passed("log", f"Redis {version} can keep it, and the user may write and read it")
        yield memory_step(clients, info, settings.max_bytes)
    except LogError as error:
        step = log_failed("log", error)
        yield step._replace(finding="log-too-old") if "Redis 6.2 or later" in step.what else step
    finally:
        await clients.close(client)


def memory_step(clients: RedisClients, info: Mapping[str, Any], max_bytes: int) -> Step:
    """Return the step about the memory of a Redis.

    Args:
        info: the reply to ``INFO``; empty if that is not permitted.
        max_bytes: of the log.
    """
    limit, policy = int(info.get("maxmemory") or 0), str(info.get("maxmemory_policy", ""))
    if not policy:
        return passed("memory", "its limit and policy are not known: the user lacks the permission for INFO")
    if policy.startswith("allkeys-") and limit:
        return found(
            "memory",
            "log-evictable",
            f"Redis removes the whole log when its memory is full (maxmemory-policy {policy})",
            "Set another policy, such as noeviction, which Celery needs, too: "
            + redis_cli(clients.address, "CONFIG", "SET", "maxmemory-policy", "noeviction"),
        )
    if limit and limit < max_bytes:
        return found(
            "memory",
            "log-memory",
            f"the log may take {size_text(max_bytes)} (--log-bytes), and Redis has {size_text(limit)} for "
            f"everything (maxmemory, policy {policy}): when it is full, it refuses to write",
            f"Set --log-bytes well below {limit}, or raise maxmemory.",
        )
    shown = size_text(limit) if limit else "no limit"
    is_saved = str(info.get("aof_enabled", "0")) != "0"
    saved = "" if is_saved else "; a restart loses the newest entries, or all (appendonly is off)"
    return passed("memory", f"maxmemory: {shown}, policy {policy}{saved}")


async def _info(clients: RedisClients, client: Any) -> Mapping[str, Any]:
    """Return the reply to ``INFO``; empty without the permission.

    Raises:
        LogError: the server cannot be used.
    """
    try:
        reply: Mapping[str, Any] = await clients.run(client.info())
    except LogError as error:
        if type(error.__cause__).__name__ == "NoPermissionError":
            return {}
        raise
    return reply


async def _try_permissions(clients: RedisClients, client: Any, key: str) -> None:
    """Use the permissions that a log needs.

    Raises:
        LogError: one is missing; the server is too old, or a replica; or the key is not a stream.
    """
    await clients.run(client.execute_command("XRANGE", key, "-", "+", "COUNT", 1))
    await clients.run(client.execute_command("XTRIM", key, "MINID", "0"))
    await clients.run(client.execute_command("XREAD", "COUNT", 1, "STREAMS", key, "0"))
    try:
        await client.execute_command("XINFO GROUPS", key)
        return
    except Exception as error:
        if not clients.is_missing_key(error):
            raise clients.error(error) from error
    await clients.run(client.execute_command("XADD", key, "NOMKSTREAM", "*", "data", ""))
