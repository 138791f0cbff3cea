"""The first message of TLS, read for the server name that it is for (RFC 8446 §4.1.2, RFC 6066 §3). Pure.

It goes on as it came, so whatever two readers could take in two ways is refused: more than one record, something
behind its end, an extension or a name that stands twice. With Encrypted Client Hello (RFC 9849) the name that counts is
sealed, and the one that can be read says nothing.
"""

from __future__ import annotations

from remit.errors import InvalidRequestError
from remit.gateway import canon

RECORD, MAX_RECORD = 5, 16_384  # octets of a record's header, and of a record
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _HOST_NAME = 0, 0
_SEALED = frozenset({0xFE0D, 0xFFCE})  # encrypted_client_hello, and what was encrypted_server_name in drafts


def server_name(data: bytes) -> str | None:
    """Return the server name, in lower case, of what a client sends first; None: the whole of it is not there yet.

    InvalidRequestError for what is no ClientHello, or one that names no server for everybody to read.
    """
    if data[:1] not in {b"", b"\x16"}:
        raise InvalidRequestError("this is no TLS")
    if len(data) < RECORD:
        return None
    size = int.from_bytes(data[3:RECORD])
    if data[1] != 3 or not 0 < size <= MAX_RECORD:  # noqa: PLR2004 - SSL 3.0 and everything after it
        raise InvalidRequestError("this is no TLS")
    if len(data) < RECORD + size:
        return None
    try:
        return _named(_Octets(data[RECORD : RECORD + size]))
    except IndexError:
        raise InvalidRequestError("the ClientHello cannot be read, or is not in one record") from None


class _Octets:
    """Octets that are taken from the front; IndexError where there are too few."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise IndexError
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> _Octets:
        """Take a vector whose length is a number of ``size`` octets."""
        return _Octets(self.take(self.number(size)))

    def end(self) -> None:
        if self.left:
            raise IndexError


def _named(record: _Octets) -> str:
    if record.number(1) != _CLIENT_HELLO:
        raise InvalidRequestError("TLS does not begin with a ClientHello")
    hello = record.vector(3)
    record.end()
    hello.take(2 + 32)  # version, random
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        hello.vector(size)
    extensions = hello.vector(2) if hello.left else hello
    hello.end()
    found: dict[int, _Octets] = {}
    while extensions.left:
        kind = extensions.number(2)
        if kind in found:
            raise InvalidRequestError("an extension stands twice in the ClientHello")
        found[kind] = extensions.vector(2)
    if not _SEALED.isdisjoint(found):
        raise InvalidRequestError("the ClientHello seals its server name (ECH), so nobody can tell whom it is for")
    if _SERVER_NAME not in found:
        raise InvalidRequestError("the ClientHello has no server name")
    names = found[_SERVER_NAME].vector(2)
    found[_SERVER_NAME].end()
    if names.number(1) != _HOST_NAME:
        raise InvalidRequestError("the ClientHello has no server name")
    name = names.take(names.number(2))
    names.end()
    return canon.host(name)
