"""Requests that are wrong in the ways in which requests are wrong, and mutations of them.

The seeds cover what the grammars of HTTP/1.1 (RFC 9112) and WebSocket (RFC 6455) allow and forbid: request
lines, fields, framing of bodies, handshakes, and frames.
"""

import random
from collections.abc import Iterator

from tests.support.attacks import WEBSOCKET, frame

_LINES = (
    *(
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.0",
        b"HEAD /events HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"GET /ws HTTP/1.1",
    ),
    *(
        b"POST /events HTTP/1.1",
        b"GET /events?type=nothing HTTP/1.1",
        b"GET /tasks?limit=1&cursor=x HTTP/1.1",
    ),
    *(
        b"GET /workflows/%00%ff%2e%2e HTTP/1.1",
        b"GET /tasks/" + b"%25" * 100 + b" HTTP/1.1",
        b"get / http/1.1",
    ),
    *(
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET /",
        b"GET",
        b"/ HTTP/1.1",
        b"GET / HTTP/9.9",
        b"GET / HTTP/1",
    ),
    *(
        b"GET /\xff\xfe HTTP/1.1",
        b"GET /?\x00 HTTP/1.1",
        b"GET //evil.example/ HTTP/1.1",
        b"GET /#fragment HTTP/1.1",
    ),
    *(b"GET http://evil.example/events HTTP/1.1", b"CONNECT evil.example:443 HTTP/1.1", b"TRACE / HTTP/1.1"),
    *(
        b"PRI * HTTP/2.0",
        b"GET http:// HTTP/1.1",
        b"GET /events?name=%zz&name=%u0041 HTTP/1.1",
        b"G\x00T / HTTP/1.1",
    ),
    *(
        b"GET /events/x HTTP/1.1",
        b"GET /metrics HTTP/1.1",
        b"GET /workers?hostname=*%3F* HTTP/1.1",
        b"DELETE / HTTP/1.1",
    ),
    *(
        b"POST /ws HTTP/1.1",
        b"GET /tasks//x/../y HTTP/1.1",
        b"GET ? HTTP/1.1",
        b"GET /events?=&&=;#? HTTP/1.1",
    ),
)
_FIELDS = (
    *(b"Host: localhost", b"Host:", b"Host: a, b", b"Host: [::1", b"host: localhost:99999999", b"Host: \xff"),
    *(
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
    ),
    *(
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity, chunked",
    ),
    *(
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"TE: trailers",
    ),
    *(
        b"Connection: close",
        b"Connection: Upgrade",
        b"Connection: keep-alive, \x00",
        b"Upgrade: websocket",
        b"Upgrade: h2c",
    ),
    *(
        b"Expect: 100-continue",
        b"Expect: nonsense",
        b"Accept: application/x-ndjson",
        b"Accept: " + b"*/*," * 500,
    ),
    *(
        b": no name",
        b"no colon",
        b" folded: line",
        b"\tfolded",
        b"x: \x00",
        b"x: \x7f\x80",
        b"x\xc3\xa9: y",
        b"x: " + b"y" * 5_000,
    ),
    *(
        b"Origin: null",
        b"Origin: https://evil.example",
        b"X-Forwarded-For: a, b, c",
        b"X-Forwarded-For: \xff",
    ),
    *(
        b"X-Forwarded-Proto: gopher",
        b"Last-Event-ID: \xf0\x9f\x98\x80",
        b"If-None-Match: " + b'W/"x", ' * 300,
    ),
    *(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Key: x", b"Sec-WebSocket-Version: 13"),
    *(
        b"Sec-WebSocket-Version: 99",
        b"Sec-WebSocket-Protocol: a,,b, \x01",
        b"Sec-WebSocket-Extensions: permessage-deflate; x=\xff",
    ),
    *(
        b"Access-Control-Request-Method: GET",
        b"Access-Control-Request-Headers: " + b"a," * 500,
        b"Cookie: a=b; \xff",
    ),
)
_BODIES = (
    *(
        b"",
        b"{}",
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;x=y\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"ffffffffffffffffff\r\n",
    ),
    *(
        b"-1\r\n",
        b"5\nhello\n0\n\n",
        b"0\r\n\r\n",
        b'{"any": null}',
        b'{"any": [{"name": ["*"]}]}',
        b'{"any":' * 500,
    ),
    *(
        b'{"any": [{"uuid": ["' + b"x" * 2_000 + b'"]}], "since": 1e999}',
        b"\xff\xfe\x00",
        b"[" * 5_000,
        b"5\r\nhel",
    ),
)
_TEXTS = (
    *(
        b"{}",
        b'{"op":"ping"}',
        b'{"op":"open"}',
        b'{"op":"filter","any":[]}',
        b'{"op":"filter"}',
        b'{"op":1}',
        b"null",
    ),
    *(
        b'{"op":"open","since":"earliest","snapshot":true}',
        b'{"op":"open","last_event_id":"x-1"}',
        b'{"op":',
        b"\xff\xfe",
    ),
    *(
        b'{"op":"filter","any":[{"type":["task-*"],"name":"a?*b"}]}',
        b"[" * 2_000,
        b'{"op":"open","fields":"a,,b"}',
        b"1e999",
    ),
    *(
        b'{"op":"open","until":"ready"}',
        b'{"op":"open","any":[{"uuid":"x"}],"until":"ready"}',
        b'"\\ud800"',
        b'{"op":"\\u0000"}',
    ),
    *(
        b'{"op":"open","max_event_bytes":-1}',
        b'{"op":"open","quiet_time":1e308}',
        b'{"op":"ping","op":"open"}',
        b"",
    ),
)


def requests(dice: random.Random) -> Iterator[bytes]:
    """Give what one client sends on a connection, without end: HTTP, and now and then a WebSocket."""
    while True:
        data = (
            _websocket(dice)
            if dice.random() < 0.3
            else b"".join(_http(dice) for _ in range(dice.randint(1, 3)))
        )
        yield mutated(dice, data) if dice.random() < 0.6 else data


def mutated(dice: random.Random, data: bytes) -> bytes:
    """Return data with some bytes or parts changed, doubled, left out, or moved."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        if not changed:
            break
        at, to = sorted((dice.randrange(len(changed)), dice.randrange(len(changed))))
        what = dice.randrange(7)
        if what == 0:
            changed[at] = dice.randrange(256)
        elif what == 1:
            changed[at] ^= 1 << dice.randrange(8)
        elif what == 2:
            del changed[at : min(to, at + 50)]
        elif what == 3:
            changed[at:at] = changed[at : min(to, at + 200)]
        elif what == 4:
            changed[at:at] = dice.choice((b"\r\n", b"\n", b"\x00", b"\r", b" ", b":", b"\xff" * 9, b"%"))
        elif what == 5:
            changed[at:at] = bytes([dice.randrange(256)]) * dice.choice((3, 300, 5_000))
        else:
            del changed[to:]
    return bytes(changed)


def _http(dice: random.Random) -> bytes:
    fields = [b"Host: localhost", *dice.sample(_FIELDS, dice.randint(0, 4))]
    if dice.random() < 0.2:
        dice.shuffle(fields)
    end = dice.choice((b"\r\n",) * 9 + (b"\n",))
    return end.join([dice.choice(_LINES), *fields, b"", dice.choice(_BODIES)])


def _websocket(dice: random.Random) -> bytes:
    frames = []
    for _ in range(dice.randint(0, 6)):
        opcode = dice.choice((1, 1, 1, 1, 2, 0, 8, 9, 10, 3, 15))
        payload = dice.choice(_TEXTS)
        if opcode == 8:
            payload = dice.choice((b"", b"\x03\xe8", b"\x03", b"\xff\xff", b"\x03\xe8" + b"\xff" * 10))
        frames.append(frame(payload, opcode, is_final=dice.random() < 0.8))
    return WEBSOCKET + b"".join(frames)
