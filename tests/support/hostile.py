"""Bodies that nobody should send, each with what must become of it.

What must become of a body is said by an oracle of its own: the standard library's JSON and msgpack's decoder
in Python, and the contract's rules written down once more (`plain` in test_normalize). Where the contract
leaves two ways open, the body says so.
"""

import base64
import bz2
import json
import lzma
import pickle
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import msgpack.fallback
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_gateway.events.normalize import MAX_BODY_BYTES
from tests.events.test_normalize import BODIES, MSGPACK, PACKED_VALUES, REAL_EVENTS, Bomb, plain
from tests.support.raw_publisher import JSON, Properties, long, short

BIG_SIZES = (1 << 20, MAX_BODY_BYTES, 16 << 20)

EVENT = "event"
"""The outcome of an item that is passed on; any other is the reason of its refusal."""


class Body(NamedTuple):
    """One message. `outcomes`: EVENT or a reason for each thing in it, in order; `or_refused`: it may also be
    refused whole, by its content type, for its properties can be too odd to be read."""

    data: bytes
    properties: Properties
    outcomes: tuple[str, ...]
    or_refused: bool = False


# ------------------------------------------------------------------------------------- the oracle


def expected(data: bytes, properties: Properties) -> tuple[str, ...]:
    """What must become of a small, shallow body."""
    kind = (properties.content_type or JSON).partition(";")[0].strip().lower() or JSON
    if kind not in (JSON, MSGPACK, "application/msgpack"):
        return ("content-type",)
    if properties.compression:
        return ("compression",)
    if (properties.content_encoding or "utf-8").lower() not in (
        "utf-8",
        "utf8",
        "us-ascii",
        "ascii",
        "binary",
    ):
        return ("content-encoding",)
    try:
        value = _from_json(data) if kind == JSON else _from_msgpack(data)
    except (ValueError, TypeError, OverflowError):
        return ("undecodable",)
    return tuple(map(_outcome, value if isinstance(value, list) else [value]))


def _from_json(data: bytes) -> Any:
    return json.loads(data.decode("utf-8-sig", "replace"), parse_int=lambda digits: 0)


def _from_msgpack(data: bytes) -> Any:
    """As JSON would have it: bytes and extensions as text or base64, times as some text."""

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(item) for item in value]
        if isinstance(value, dict):
            return {of(key): of(item) for key, item in value.items()}
        if isinstance(value, msgpack.ExtType):
            value = value.data
        if isinstance(value, bytes):
            try:
                return value.decode()
            except UnicodeDecodeError:
                return base64.b64encode(value).decode()
        return value if isinstance(value, str | int | float | None) else "a time"

    options = {"strict_map_key": True, "unicode_errors": "replace", "timestamp": 3}
    return of(msgpack.fallback.unpackb(data, **options))


def _outcome(item: Any) -> str:
    item = plain(item)
    if not isinstance(item, dict):
        return "not-an-object"
    kind = item.get("type")
    if not isinstance(kind, str) or not kind:
        return "no-type"
    if kind.startswith("gateway-"):
        return "reserved-type"
    return "gossip" if kind in ("worker-elect", "worker-elect-ack") else EVENT


def judged(data: bytes, properties: Properties | None = None) -> Body:
    properties = properties or Properties()
    return Body(data, properties, expected(data, properties))


# ------------------------------------------------------------------------- drawn, and changed by chance


def drawn(count: int) -> list[Body]:
    """JSON and msgpack of any shape, as hypothesis draws them; the same each time."""
    found: list[Body] = []

    @settings(
        database=None,
        derandomize=True,
        deadline=None,
        max_examples=count,
        suppress_health_check=list(HealthCheck),
    )
    @given(BODIES, st.booleans(), PACKED_VALUES, st.sampled_from(["task-progress", "", "gateway-open", None]))
    def collect(value: Any, is_ascii: bool, packed: Any, kind: str | None) -> None:
        found.append(
            judged(json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"), Properties())
        )
        with suppress(OverflowError):  # an integer that msgpack has no room for
            found.append(judged(msgpack.packb({"type": kind, "v": packed}), Properties(MSGPACK, "binary")))
            found.append(judged(msgpack.packb(packed), Properties(MSGPACK, "binary")))

    collect()
    return found


def changed(chance: random.Random, bodies: Sequence[Body]) -> Iterator[Body]:
    """Without end: a body of those, with something in its bytes changed by chance."""
    while True:
        body = chance.choice(bodies)
        data = body.data
        at = chance.randrange(len(data) + 1)
        end = at + chance.randrange(12)
        way = chance.randrange(8)
        if way == 0:
            data = data[:at]
        elif way == 1:
            data = data[:at] + data[end:]
        elif way == 2:
            data = data[:end] + data[at:]
        elif way == 3:
            data = data[:at] + chance.randbytes(3) + data[end:]
        elif way == 4:
            data = data[:at] + chance.choice(bodies).data[at:]
        elif way == 5:
            data = data[:at] + chance.choice(SNIPPETS) + data[at:]
        elif way == 6:
            data = data[:at] + chance.choice(SNIPPETS) + data[end:]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        yield judged(data, body.properties)


SNIPPETS = (
    *(b"0", b"-", b".", b"1e999", b"NaN", b"null", b"{}", b"[]", b"[", b"]", b"{", b"}", b",", b":", b'"'),
    *(b"\\", rb"\ud800", rb"\u0000", b"\0", b"\xff", b"\xe2\x80\xa8", b"\n", b"9" * 400, b"9" * 5_000),
    *(b'"type":"a",', b'"type":5,', b'"id":1,', b'"time":[],', b'"uuid":{},', b'"timestamp":"x",', b"\xc1"),
)


def recombined(chance: random.Random, bodies: Sequence[Body]) -> Iterator[Body]:
    """Without end: JSON made of parts of those bodies; lists of what was one, objects with one as a value."""
    parts = [body.data for body in bodies if body.properties == Properties() and len(body.data) < 1_000]
    keys = [f'"{field}":'.encode() for event in REAL_EVENTS for field in event] + [
        b'"id":',
        b'"fields":',
        b'"":',
    ]
    while True:
        some = [chance.choice(parts) for _ in range(chance.randrange(1, 5))]
        if chance.random() < 0.4:
            data = b"[%b]" % b",".join(some)
        else:
            named = [chance.choice(keys) + part for part in some] + [b'"type":"task-progress"']
            chance.shuffle(named)
            data = b"{%b}" % b",".join(named)
        yield judged(data)


# ------------------------------------------------------------------------------------ made on purpose

CONTENT_TYPES = (
    *(None, "", JSON, "APPLICATION/JSON", f"{JSON}; charset=latin-1", f" {JSON} ", "application/jsonx"),
    *(MSGPACK, "application/msgpack", "application/x-python-serialize", "application/x-yaml", "text/plain"),
    *("application/data", "é", ";", "x" * 80, "application/x-python-serialize; charset=utf-8"),
)
ENCODINGS = (None, "", "utf-8", "UTF-8", "binary", "us-ascii", "latin-1", "utf-16", "utf-7", "base64", "gzip")
COMPRESSIONS = (None, "", "application/x-gzip", "application/x-bz2", "application/zstd", "x")

WRONG = (
    *(
        b"null",
        b"true",
        b"0",
        b"-1",
        b"0.5",
        b"1e308",
        b"1e999",
        b"-1e999",
        b"NaN",
        b"Infinity",
        b'""',
        b"[]",
    ),
    *(b"{}", b'"x"', b'[["x"]]', b'{"type":"x"}', b'{"__type__":"uuid","__value__":{"hex":"x"}}'),
    *(b'{"__type__":"datetime","__value__":"x"}', rb'"\ud800"', rb'"\u0000"', '"\u2028"'.encode(), b'"\xff"'),
    *(
        str(2**63).encode(),
        str(-(2**64)).encode(),
        b"9" * 400,
        b"-" + b"9" * 5_000,
        b'"' + b"x" * 3_000 + b'"',
    ),
)


def of_every_property() -> Iterator[Body]:
    """One event under all sorts of properties, in JSON and in msgpack."""
    event = {"type": "task-progress", "uuid": "u"}
    for said in product(CONTENT_TYPES, ENCODINGS, COMPRESSIONS):
        for data in (json.dumps(event).encode(), msgpack.packb(event)):
            yield judged(data, Properties(*said))


def of_every_wrong_type() -> Iterator[Body]:
    """Real events with a field of another kind: in its place, before it and after it."""
    for event in REAL_EVENTS:
        fields = {f'"{key}"'.encode(): json.dumps(value).encode() for key, value in event.items()}
        for (name, right), wrong in product(fields.items(), WRONG):
            others = [b"%b:%b" % pair for pair in fields.items() if pair[0] != name]
            for values in ([wrong], [wrong, right], [right, wrong]):
                yield judged(b"{%b}" % b",".join([*others, *(b"%b:%b" % (name, value) for value in values)]))


def of_many_names(count: int) -> Iterator[Body]:
    """Events of as many hosts, tasks, roots and users' types."""
    for number in range(count):
        about = {"hostname": f"host-{number}", "name": f"app.task_{number}", "uuid": f"many-{number}"}
        kind = ("task-received", "worker-heartbeat", "task-sent", f"kind{number}-x")[number % 4]
        event = {"type": kind, **about, "root_id": f"root-{number}", "queue": f"queue-{number}"}
        yield Body(json.dumps(event).encode(), Properties(), (EVENT,))


def of_code(marker: Path) -> Iterator[Body]:
    """Pickles and YAML that create a file, under their own content type and disguised."""
    codes = [pickle.dumps({"type": "task-sent", "v": Bomb(marker)}, protocol) for protocol in range(6)]
    codes.append(f"!!python/object/apply:os.system ['touch {marker}']".encode())
    for code, kind, encoding in product(codes, CONTENT_TYPES, ("binary", "utf-8", None)):
        yield judged(code, Properties(kind, encoding))


def of_odd_properties() -> Iterator[Body]:
    """One event under properties that few would send, and RabbitMQ carries all the same."""
    flags = {"content_type": 15, "headers": 13, "priority": 11, "timestamp": 6, "cluster_id": 2, "unknown": 1}
    values = {
        "content_type": [short(b"\xff\xfe"), short(b"application/json\0")],
        "priority": [b"\xff"],
        "timestamp": [struct.pack(">Q", time) for time in (0, 2**40, 2**48, 2**63 - 1, 2**64 - 1)],
        "cluster_id": [short(b"x" * 255)],
        "unknown": [b""],
        "headers": [
            long(fields)
            for fields in (
                short(b"\xff") + b"S" + long(b"x"),
                short(b"k") + b"T" + struct.pack(">Q", 2**64 - 1),
                short(b"k") + b"D" + b"\xff" * 5,
                short(b"k") + b"x" + long(b"\x00\xff"),
                short(b"k") + b"L" + b"\xff" * 8,
                b"".join(short(b"%d" % number) + b"V" for number in range(5_000)),
                short(b"k") + b"A" + long(b"V" * 20_000),
                _nested(b"F", 50),
                _nested(b"F", 5_000),
                _nested(b"A", 5_000),
            )
        ],
    }
    for name, encodings in values.items():
        for encoded in encodings:
            yield Body(
                b'{"type":"odd-properties"}', Properties(odd=(1 << flags[name], encoded)), (EVENT,), True
            )
    for value in (b"I" + b"\0" * 4, b"t\0", b"S" + long(b"\xff"), b"F" + long(b""), b"A" + long(b"")):
        headers = long(short(b"compression") + value)
        yield Body(b"x", Properties(odd=(1 << flags["headers"], headers)), ("compression",), True)


def _nested(kind: bytes, depth: int) -> bytes:
    """A header whose value is a table in a table, or an array in an array."""
    name = short(b"k") if kind == b"F" else b""
    value = b""
    for _ in range(depth):
        value = name + kind + long(value)
    return value if name else short(b"k") + value


# ------------------------------------------------------------------------------------------------ big


def _zlib_bomb(size: int) -> bytes:
    """Zeros: a thousand times as many bytes as it has."""
    packer = zlib.compressobj(9)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return (head + block * (size // len(block) + 1))[:size]


def _repeated(stream: bytes) -> Callable[[int], bytes]:
    return lambda size: (stream * (size // len(stream) + 1))[:size]


def _event(head: bytes, filling: bytes, tail: bytes = b'"}') -> Callable[[int], bytes]:
    head = b'{"type":"big","v":' + head
    return lambda size: head + filling * ((size - len(head) - len(tail)) // len(filling)) + tail


BIG: Sequence[tuple[Callable[[int], bytes], Properties, str]] = (
    (_event(b'"', b"x"), Properties(), EVENT),
    (_event(b'"', rb"\ud800"), Properties(), EVENT),
    (_event(b'"', b"\xff"), Properties(), EVENT),
    (_event(b'"', "\u2028\x85".encode()), Properties(), EVENT),
    (_event(b'"', b"x", b""), Properties(), "undecodable"),
    (_event(b"1", b" ", b"}"), Properties(), EVENT),
    (_event(b"1", b"7", b"}"), Properties(), EVENT),
    (_event(b"[NaN", b",0", b"]}"), Properties(), "too-complex"),
    (_event(b"", b'{"a":', b""), Properties(), "too-deep"),
    (lambda size: b"[" * size, Properties(), "too-deep"),
    (lambda size: b"x" * size, Properties(), "undecodable"),
    (lambda size: b"[%b]" % b",".join([b'{"type":"a"}'] * (size // 13)), Properties(), "too-complex"),
    (lambda size: b"\x91" * size, Properties(MSGPACK), "too-deep"),
    (lambda size: b"\xdd\xff\xff\xff\xff" + b"\x01" * (size - 5), Properties(MSGPACK), "undecodable"),
    (_zlib_bomb, Properties(compression="application/x-gzip"), "compression"),
    (_zlib_bomb, Properties(content_encoding="gzip"), "content-encoding"),
    (_zlib_bomb, Properties(), "undecodable"),
    (_repeated(bz2.compress(bytes(1 << 20))), Properties(compression="application/x-bz2"), "compression"),
    (_repeated(lzma.compress(bytes(1 << 20))), Properties(compression="application/x-lzma"), "compression"),
)
"""Bodies of any size: how to make one, under which properties, and what must become of one not too large."""


def big() -> Iterator[Body]:
    """Bodies of 1 MiB up to 16 MiB; made when they are asked for, since all together are many."""
    for make, properties, outcome in BIG:
        for size in BIG_SIZES:
            data = make(size)
            assert size - 20 < len(data) <= size
            too_large = size > MAX_BODY_BYTES and not outcome.startswith(
                "co"
            )  # properties are looked at first
            yield Body(data, properties, ("too-large" if too_large else outcome,))
