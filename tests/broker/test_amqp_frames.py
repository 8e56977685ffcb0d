"""Deliveries are taken out of the broker's bytes, wherever those are cut; all other frames reach aiormq."""

import asyncio
import random
import uuid
from collections.abc import Sequence
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection as KombuConnection
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from yarl import URL

from celery_gateway.broker.amqp_connection import Connection
from celery_gateway.broker.amqp_frames import Delivery, DeliveryReader
from celery_gateway.events.message import Message

pytestmark = pytest.mark.unit

HEARTBEAT = pamqp.frame.marshal(Heartbeat(), 0)


def delivery(
    tag: int, body: bytes, *, channel: int = 1, frame_bytes: int = 100, **properties: object
) -> bytes:
    """The frames of one delivery as a broker writes them."""
    frames: list[object] = [
        commands.Basic.Deliver("events", tag, False, "celeryev", "task.multi"),
        ContentHeader(body_size=len(body), properties=commands.Basic.Properties(**properties)),
    ]
    frames += [ContentBody(body[at : at + frame_bytes]) for at in range(0, len(body), frame_bytes)]
    return b"".join(pamqp.frame.marshal(frame, channel) for frame in frames)


async def fed(chunks: Sequence[bytes]) -> tuple[list[Delivery], bytes]:
    """The deliveries, and the bytes for aiormq (without heartbeats)."""
    taken: list[Delivery] = []
    reader = DeliveryReader(taken.append)
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    return taken, (await reader.read()).replace(HEARTBEAT, b"")


def cut(data: bytes, positions: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False)]


@given(
    bodies=st.lists(st.binary(max_size=350), min_size=1, max_size=5),
    positions=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_deliveries_are_complete_and_in_order_and_other_frames_are_passed_on(
    bodies: list[bytes], positions: list[int]
) -> None:
    others = [
        pamqp.frame.marshal(commands.Basic.QosOk(), 1),
        pamqp.frame.marshal(commands.Channel.OpenOk(), 2),
        pamqp.frame.marshal(commands.Queue.DeclareOk("q", 0, 0), 1),
    ]
    data, expected_others = b"", b""
    for tag, body in enumerate(bodies, 1):
        other = others[tag % len(others)]
        data += other + delivery(tag, body, content_type="application/json")
        expected_others += other
    taken, passed = asyncio.run(fed(cut(data, positions)))
    assert taken == [
        Delivery(b"events", tag, Message(body, "application/json", None, None))
        for tag, body in enumerate(bodies, 1)
    ]
    assert passed == expected_others


async def test_properties_are_read_as_the_broker_sends_them() -> None:
    data = delivery(
        1,
        b"{}",
        content_type="application/x-msgpack",
        content_encoding="binary",
        delivery_mode=1,
        headers={"hostname": "w@h", "compression": "application/x-gzip"},
    ) + delivery(2, b"")
    taken, _ = await fed([data])
    assert taken[0].message == Message(b"{}", "application/x-msgpack", "binary", "application/x-gzip")
    assert taken[1].message == Message(b"", None, None, None)


async def test_frames_of_another_channel_between_are_passed_on() -> None:
    data = delivery(7, b"x" * 250)
    middle = data.index(b"x" * 100) + 101  # behind the first body frame
    between = pamqp.frame.marshal(ContentBody(b"of another channel"), 2)
    taken, passed = await fed([data[:middle] + between + data[middle:]])
    assert [(one.tag, one.message.body) for one in taken] == [(7, b"x" * 250)]
    assert passed == between


def in_stream(tag: int, offset: int, body: bytes = b"{}", **headers: object) -> bytes:
    """The frames of a delivery from a RabbitMQ stream: the offset is a signed integer of 64 bits."""
    largest = 1 << 62
    data = delivery(
        tag,
        body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"hostname": "w@h", "x-stream-offset": largest, **headers},
    )
    encoded = largest.to_bytes(8, "big")
    assert data.count(b"\x0fx-stream-offsetl" + encoded) == 1
    return data.replace(encoded, offset.to_bytes(8, "big"))


@given(
    offsets=st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=5),
    positions=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_messages_of_a_stream_have_their_offset(offsets: list[int], positions: list[int]) -> None:
    data = b"".join(in_stream(tag, offset) for tag, offset in enumerate(offsets, 1))
    taken, passed = asyncio.run(fed(cut(data, positions)))
    assert [one.message for one in taken] == [
        Message(b"{}", "application/json", "utf-8", None, offset) for offset in offsets
    ]
    assert passed == b""


async def test_properties_of_a_stream_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    decode = DeliveryReader._decode

    def counted(reader: DeliveryReader, key: bytes, *rest: Any) -> Any:
        decoded.append(key)
        return decode(reader, key, *rest)

    monkeypatch.setattr(DeliveryReader, "_decode", counted)
    taken, _ = await fed([in_stream(tag, tag * 1_000_003) for tag in range(1, 500)])
    assert [one.message.offset for one in taken] == [tag * 1_000_003 for tag in range(1, 500)]
    assert len(decoded) == 1


@pytest.mark.parametrize("name", ["a", "z"])
async def test_text_that_looks_like_an_offset_is_not_one(name: str) -> None:
    forged = "\x0fx-stream-offsetl" + "0" * 8
    (taken,), _ = await fed([in_stream(1, 7, **{name: forged})])
    assert taken.message.offset is None
    assert taken.message.content_type == "application/json"
    (taken,), _ = await fed([in_stream(1, 7, **{name: forged[:-9]})])
    assert taken.message.offset == 7


async def test_unreadable_properties_do_not_count_as_json() -> None:
    data = bytearray(delivery(1, b"{}", headers={"hostname": "w@h"}))
    at = data.index(b"\x08hostname") + 9
    data[at : at + 1] = b"?"  # a type of value that AMQP does not have
    (taken,), _ = await fed([bytes(data)])
    assert taken.message.content_type not in (None, "application/json")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01", b"SSH-2.0-x\r\n"]
)
async def test_another_protocol_is_passed_on_unchanged(answer: bytes) -> None:
    assert await fed(cut(answer, [3, 9])) == ([], answer)


async def test_a_stream_of_deliveries_counts_as_a_heartbeat() -> None:
    reader = DeliveryReader(lambda delivery: None)
    for tag in range(1, 1000):
        reader.feed_data(delivery(tag, b"{}"))
    reader.feed_eof()
    passed = await reader.read()
    assert passed.startswith(HEARTBEAT)
    assert len(passed) <= 10 * len(HEARTBEAT)


@pytest.mark.slow
async def test_bodies_of_any_size_from_a_broker(broker: str) -> None:
    taken: asyncio.Queue[Delivery] = asyncio.Queue()
    connection = Connection(URL(broker), taken.put_nowait)
    await connection.connect(10)
    try:
        channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
        queue = f"sizes-{uuid.uuid4().hex}"
        await channel.queue_declare(queue, exclusive=True)
        await channel.basic_qos(prefetch_count=5)

        async def never(_: object) -> None:
            raise AssertionError("aiormq got a delivery")

        await channel.basic_consume(queue, never)
        sizes = [0, 1, 131_063, 131_064, 131_065, 300_000, 5_000_000, 7]
        bodies = [random.Random(size).randbytes(size) for size in sizes]

        def publish() -> None:
            with KombuConnection(broker) as publisher:
                for body in bodies:
                    publisher.default_channel.basic_publish_confirm(
                        publisher.default_channel.prepare_message(body), exchange="", routing_key=queue
                    )

        await asyncio.to_thread(publish)
        async with asyncio.timeout(30):
            got = [await taken.get() for _ in range(5)]
            assert taken.empty()  # the credit is used up, until they are acknowledged
            await channel.basic_ack(got[-1].tag, multiple=True)
            got += [await taken.get() for _ in range(3)]
        assert [one.message.body for one in got] == bodies
    finally:
        await connection.close()
