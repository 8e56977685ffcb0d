"""Detecting that a broker was restarted: an exchange that is not durable, so that a restart deletes it.

While a RabbitMQ starts, it accepts messages before its streams are up, and drops those for them, also if it
has confirmed them. No offset shows that. So a gateway that reads a stream after a restart reports
that messages may be missing. Then it sets the mark again.
"""

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from celery_gateway.broker.amqp_queues import OpenChannel


async def has_mark(name: str, open_channel: OpenChannel) -> bool:
    """Return whether the broker was not restarted since the mark was set; also without a permission for it.

    Args:
        name: that of the exchange.
    """
    channel: AbstractChannel = await open_channel()
    try:
        await channel.exchange_declare(name, passive=True)
        await channel.close()
    except ChannelNotFoundEntity:
        return False
    except ChannelAccessRefused:
        pass
    return True


async def set_mark(name: str, open_channel: OpenChannel) -> None:
    """Set the mark, if that is permitted."""
    channel: AbstractChannel = await open_channel()
    try:
        await channel.exchange_declare(name, exchange_type="fanout", durable=False)
        await channel.close()
    except (ChannelAccessRefused, ChannelPreconditionFailed):
        pass
