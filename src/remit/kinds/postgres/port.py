"""How a connection to PostgreSQL opens, read on its way through a database port of a run.

Written after the manual's "Message Flow" and "Message Formats" (protocol 3). Rules:

- Nothing goes to the server before the startup message is complete and its login was admitted.
- The client is told that there is no TLS and no GSSAPI here: the port is the run's own, and the gateway speaks TLS to
  the server. So it can be read who logs in.
- A startup message says each thing once: of two users the server takes the last, and others may take the first.
- A server that has TLS offers SCRAM with channel binding, which the client cannot do; the offer is left out.
"""

from __future__ import annotations

from remit.errors import InvalidRequestError, LimitError, RemitError, UnavailableError, UpstreamError
from remit.kinds.postgres import DatabaseAddress
from remit.ports.kind import TlsStart

MOST = 10_000  # bytes of a startup message, as the server has it (MAX_STARTUP_PACKET_LENGTH)
MOST_ANSWERED = 65_536  # bytes of one message of the server's before the session begins
MOST_KEY = 260  # bytes of a cancel key with its process number
_CANCEL, _SSL, _GSS, _MAJOR = 80_877_102, 80_877_103, 80_877_104, 3
_ASK_TLS = (8).to_bytes(4, "big") + _SSL.to_bytes(4, "big")
_SASL = (10).to_bytes(4, "big")
_BINDING = b"SCRAM-SHA-256-PLUS"
_LAST = frozenset({b"K", b"Z", b"E"})  # the session's key, or that there is none


class PostgresSession:
    """One connection through a port. Satisfies PortSession."""

    def __init__(self, place: DatabaseAddress) -> None:
        self.tls = TlsStart(_ASK_TLS, b"S", place.host) if place.tls == "verify-full" else None
        self.login: str | None = None
        self.cancels: bytes | None = None
        self.key: bytes | None = None
        self.first = b""
        self._database = place.database
        self._asked = set[int]()
        self._begun = False  # the server has said all that is read
        self._kept = b""  # the beginning of a message of the server's

    def heard(self, data: bytes) -> bytes:
        self.first += data
        answer = b""
        while len(self.first) >= 8:  # noqa: PLR2004 - length and code
            size, code = int.from_bytes(self.first[:4], "big"), int.from_bytes(self.first[4:8], "big")
            if not 8 <= size <= MOST:  # noqa: PLR2004 - as above
                raise InvalidRequestError("this port speaks PostgreSQL, without TLS", help="say sslmode=disable")
            if len(self.first) < size:
                break
            message = self.first[8:size]
            if code not in {_SSL, _GSS}:
                self._open(code, message)
                break
            if message or code in self._asked:
                raise InvalidRequestError("a request for encryption is not well formed")
            self._asked.add(code)
            self.first = self.first[size:]
            answer += b"N"
        return answer

    def _open(self, code: int, message: bytes) -> None:
        if code == _CANCEL and len(message) <= MOST_KEY:
            self.cancels = message
        elif code >> 16 == _MAJOR:
            self.login = self._read(message)
        else:
            raise InvalidRequestError("only version 3 of the protocol is spoken here")

    def _read(self, message: bytes) -> str:
        fields = message.split(b"\0")
        names, values = fields[:-2:2], fields[1:-2:2]
        found = dict(zip(names, values, strict=False))
        if fields[-2:] != [b"", b""] or len(values) != len(names) or len(found) != len(names) or b"" in found:
            raise InvalidRequestError("the startup message is not well formed")
        user, database = found.get(b"user", b""), found.get(b"database", b"")
        if (database or user) != self._database.encode():
            raise InvalidRequestError(f"this port leads to the database `{self._database}` alone")
        try:
            return user.decode()
        except ValueError:
            raise InvalidRequestError("the startup message names no user that could be") from None

    def answered(self, data: bytes) -> bytes:
        if self._begun:
            return data
        data, passed = self._kept + data, b""
        while len(data) >= 5:  # noqa: PLR2004 - type and length
            kind, size = data[:1], int.from_bytes(data[1:5], "big") + 1
            if 5 <= size <= MOST_ANSWERED and len(data) < size:  # noqa: PLR2004 - as above
                break
            if not 5 <= size <= MOST_ANSWERED or kind in _LAST:  # noqa: PLR2004 - as above
                self.key = data[5:size] if kind == b"K" else None
                self._begun = True
                return passed + data
            passed += self._answer(kind, data[5:size])
            data = data[size:]
        self._kept = data
        return passed

    def _answer(self, kind: bytes, message: bytes) -> bytes:
        if kind == b"R" and message[:4] == _SASL and self.tls is not None:
            offered = message[4:].split(b"\0")
            message = _SASL + b"\0".join(name for name in offered if name != _BINDING)
        return _message(kind, message)

    def refusal(self, error: RemitError) -> bytes:
        """Return an ErrorResponse; whoever cancels reads nothing."""
        if self.cancels is not None:
            return b""
        fields = {"S": "FATAL", "V": "FATAL", "C": _state(error), "M": f"remit: {error.detail}", "H": error.help}
        told = "".join(f"{name}{text}\0" for name, text in fields.items() if text)
        return _message(b"E", told.encode() + b"\0")


def _message(kind: bytes, message: bytes) -> bytes:
    return kind + (len(message) + 4).to_bytes(4, "big") + message


def _state(error: RemitError) -> str:
    """Return the SQLSTATE of a refusal."""
    match error:
        case InvalidRequestError():
            return "08P01"  # protocol_violation
        case LimitError():
            return "53300"  # too_many_connections
        case UpstreamError() | UnavailableError():
            return "57P03"  # cannot_connect_now
    return "28000"  # invalid_authorization_specification
