"""Whatever begins a connection: the name that is read is the one that a server of TLS goes by, or none is read."""

from __future__ import annotations

import ssl
from contextlib import suppress
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import InvalidRequestError
from remit.gateway.client_hello import server_name
from tests.gateway.test_client_hello import extension, hello, named, of_openssl, record, vector

ONE, OTHER = b"a.example", b"b.example"
REAL = of_openssl(ONE.decode())
PIECES = (
    named(ONE),
    named(OTHER),
    named(ONE, OTHER),
    named(ONE, kind=1),
    extension(0, vector(2, b"\0" + vector(2, ONE) + b"\1" + vector(2, OTHER))),
    extension(0, b""),
    extension(43, b"\x02\x03\x04"),
    extension(10, vector(2, b"\0\x1d")),
    extension(0xFE0D, bytes(32)),
    extension(21, bytes(40)),
)


def openssl(data: bytes) -> list[str | None]:
    """Return the names that OpenSSL goes by when it is sent ``data``."""
    context, names = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[str | None]()

    def noted(_session: object, name: str | None, _context: object) -> int:
        names.append(name)
        return int(ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)

    context.sni_callback = noted
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    session: Any = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    with suppress(ssl.SSLError):
        session.do_handshake()
    return names


def mutated(dice: Random) -> bytes:
    """Return a ClientHello, most of it proper: pieces joined, lengths and other bytes changed, records cut."""
    data = REAL if dice.random() < 0.5 else hello(*dice.choices(PIECES, k=dice.randrange(4)))
    for _ in range(dice.randrange(3)):
        at, cut = dice.randrange(len(data)), dice.randrange(3)
        put = dice.choice([bytes([dice.randrange(256)]), b"", b"\0", ONE, OTHER, dice.choice(PIECES)])
        data = data[:at] + put + data[at + cut :]
    if dice.random() < 0.3:  # a length that fits again
        data = data[:3] + vector(2, b"\x01" + vector(3, data[9:]))
    if dice.random() < 0.2:
        at = dice.randrange(len(data))
        data = record(data[5:at]) + record(data[at:])
    return data + (hello(named(OTHER)) if dice.random() < 0.1 else b"")


def read(data: bytes) -> str | None:
    try:
        return server_name(data)
    except InvalidRequestError:
        return None


def test_openssl_goes_by_the_name_of_what_is_proper() -> None:
    assert openssl(REAL) == [read(REAL)] == ["a.example"]


@settings(max_examples=5_000)
@given(st.randoms(use_true_random=False))
def test_the_name_that_is_read_is_the_one_that_openssl_goes_by(dice: Random) -> None:
    data = mutated(dice)
    name = read(data)
    if name is not None and name.isascii():  # else it is no host's
        assert [(found or "").lower() for found in openssl(data)] in ([name], [])
