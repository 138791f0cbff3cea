"""The server name of a ClientHello: as real clients send it, and as somebody would who means another one."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import InvalidRequestError
from remit.gateway.client_hello import MAX_RECORD, server_name


def of_openssl(name: str | None) -> bytes:
    """Return what OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name).do_handshake()
    return sent.read()


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size) + data


def extension(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2) + vector(2, data)


def named(*names: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def record(message: bytes) -> bytes:
    return b"\x16\x03\x01" + vector(2, message)


def hello(*extensions: bytes, after: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    return record(b"\x01" + vector(3, body + (vector(2, b"".join(extensions)) if extensions else b"")) + after)


def test_the_name_that_openssl_sends_is_read_as_soon_as_all_of_it_is_there() -> None:
    whole = of_openssl("Registry.Example")
    assert [server_name(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
    assert server_name(whole) == "registry.example"
    assert server_name(whole + b"\x14\x03\x03") == "registry.example"  # early data


REFUSED = {
    "no name": of_openssl(None),
    "no extensions": hello(),
    "an empty list of names": hello(extension(0, vector(2, b""))),
    "two names": hello(named(b"a.example", b"b.example")),
    "a name of another type": hello(named(b"a.example", kind=1)),
    "the extension twice": hello(named(b"a.example"), named(b"a.example")),
    "another one twice": hello(named(b"a.example"), extension(43, b"\x02\x03\x04"), extension(43, b"\x02\x03\x04")),
    "something behind the list of names": hello(extension(0, vector(2, b"\0" + vector(2, b"a.example")) + b"\0")),
    "something behind its extensions": record(b"\x01" + vector(3, hello(named(b"a.example"))[9:] + b"\0")),
    "encrypted client hello": hello(named(b"a.example"), extension(0xFE0D, b"\0" * 32)),
    "encrypted server name": hello(named(b"a.example"), extension(0xFFCE, b"\0" * 32)),
    "something behind it in the record": hello(named(b"a.example"), after=b"\x0b\0\0\0"),
    "in two records": b"".join(record(hello(named(b"a.example"))[5:][part]) for part in (slice(20), slice(20, None))),
    "a record that is too long": b"\x16\x03\x01" + (MAX_RECORD + 1).to_bytes(2),
    "an empty record": b"\x16\x03\x01\0\0",
    "another message": record(b"\x02" + vector(3, b"\0" * 40)),
    "an alert": b"\x15\x03\x01\0\x02\x02\x28",
    "SSL 2": b"\x80\x2e\x01\0\x02\0\x15\0\0\0\x10",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_could_be_for_another_host_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        server_name(data)


def test_a_plain_one_is_not() -> None:
    assert server_name(hello(named(b"a.example"))) == "a.example"
    large = hello(named(b"a.example"), extension(21, b"\0" * (MAX_RECORD - 100)))
    assert server_name(large) == "a.example"
    assert server_name(large[:-1]) is None


@given(st.binary(max_size=64), st.integers(0, 120), st.binary(max_size=8))
def test_whatever_comes_is_a_name_or_refused_or_not_all_there(data: bytes, at: int, put: bytes) -> None:
    whole = hello(named(b"a.example"))
    for each in (data, b"\x16\x03" + data, whole[:at] + put + whole[at + len(put) :]):
        try:
            assert isinstance(server_name(each), str | None)
        except InvalidRequestError:
            continue
