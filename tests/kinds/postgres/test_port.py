from __future__ import annotations

import pytest

from remit.errors import DeniedError, InvalidRequestError, LimitError, RemitError, UpstreamError
from remit.kinds.postgres import DatabaseAddress
from remit.kinds.postgres.port import MOST, MOST_ANSWERED, PostgresSession
from remit.ports.kind import TlsStart

SSL, GSS = b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x08\x04\xd2\x16\x30"
OK, READY = b"R\0\0\0\x08\0\0\0\0", b"Z\0\0\0\x05I"
KEY = b"K\0\0\0\x0c\0\0\0\x07abcd"
SASL = b"R\0\0\0\x2a\0\0\0\nSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"


def session(tls: str = "loopback") -> PostgresSession:
    return PostgresSession(DatabaseAddress("db.example", 5432, "sales", "remit", tls))


def packet(code: int, body: bytes) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + code.to_bytes(4, "big") + body


def startup(*pairs: bytes, version: int = 3 << 16) -> bytes:
    return packet(version, b"".join(part + b"\0" for part in pairs) + b"\0")


LEASE = startup(b"user", b"remit_lse_1", b"database", b"sales", b"options", b"")


@pytest.mark.parametrize("version", [3 << 16, (3 << 16) + 2])
def test_who_logs_in_stands_in_the_startup_message_which_goes_on_as_it_came(version: int) -> None:
    read = session()
    message = startup(b"user", b"remit_lse_1", b"database", b"sales", version=version)
    assert read.heard(message + b"more") == b""
    assert (read.login, read.cancels, read.first) == ("remit_lse_1", None, message + b"more")


def test_it_may_come_octet_by_octet_after_both_questions_for_encryption() -> None:
    read, answers = session(), b""
    for at, octet in enumerate(SSL + GSS + LEASE):
        assert read.login is None, at
        answers += read.heard(bytes([octet]))
    assert answers == b"NN"
    assert (read.login, read.first) == ("remit_lse_1", LEASE)


def test_a_cancel_names_the_session_that_is_to_stop() -> None:
    read = session()
    assert read.heard(SSL) == b"N"
    assert read.heard(packet(80877102, b"\0\0\0\x07abcd")) == b""
    assert (read.login, read.cancels) == (None, b"\0\0\0\x07abcd")
    assert read.refusal(DeniedError()) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # TLS from the first octet
        b"GET / HTTP/1.1\r\n",
        b"\0\0\0\x07\0\x03\0\0",
        (MOST + 1).to_bytes(4, "big") + b"\0\x03\0\0",
        SSL + SSL,
        GSS + SSL + GSS,
        packet(80877103, b"x"),
        packet(80877102, bytes(261)),
        startup(b"user", b"remit_lse_1", version=2 << 16),
        startup(b"user", b"remit_lse_1", version=4 << 16),
        startup(b"user", b"remit_lse_1"),  # whose database would be of that name
        startup(b"user", b"remit_lse_1", b"database", b"postgres"),
        startup(b"user", b"remit_lse_1", b"user", b"postgres", b"database", b"sales"),
        startup(b"user", b"remit_lse_1", b"database", b"sales", b"database", b"postgres"),
        startup(b"user", b"\xff", b"database", b"sales"),
        startup(b"user", b"remit_lse_1", b"database"),
        startup(b"", b"remit_lse_1", b"user", b"postgres", b"database", b"sales"),
        packet(3 << 16, b"user\0remit_lse_1\0database\0sales\0"),
        packet(3 << 16, b"user\0remit_lse_1\0database\0sales\0\0user\0postgres\0"),
        packet(3 << 16, b""),
    ],
)
def test_what_could_be_read_in_two_ways_or_leads_elsewhere_is_refused(data: bytes) -> None:
    read = session()
    with pytest.raises(InvalidRequestError):
        read.heard(data)
    assert (read.login, read.cancels) == (None, None)


def test_an_opening_without_a_user_is_a_login_of_nobody() -> None:
    read = session()
    read.heard(startup(b"database", b"sales"))
    assert read.login == ""


def test_the_servers_side_is_spoken_to_in_tls_where_the_resource_says_so() -> None:
    assert session("verify-full").tls == TlsStart(SSL, b"S", "db.example")
    assert session().tls is None


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_channel_binding_is_not_offered_where_the_client_has_no_tls(piece: int) -> None:
    read, data, passed = session("verify-full"), SASL + OK + KEY + READY + SASL, b""
    for at in range(0, len(data), piece):
        passed += read.answered(data[at : at + piece])
    assert passed == b"R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0" + OK + KEY + READY + SASL
    assert read.key == b"\0\0\0\x07abcd"


def test_a_server_without_tls_is_passed_on_as_it_speaks() -> None:
    read = session()
    assert read.answered(SASL + OK + KEY + READY) == SASL + OK + KEY + READY
    assert read.key == b"\0\0\0\x07abcd"


@pytest.mark.parametrize("last", [READY, b"E\0\0\0\x05\0", b"x\0\0\0\0", b"R" + (MOST_ANSWERED).to_bytes(4, "big")])
def test_a_server_that_names_no_key_has_none_and_is_read_no_further(last: bytes) -> None:
    read = session()
    assert read.answered(OK + last + KEY) == OK + last + KEY
    assert read.answered(KEY) == KEY
    assert read.key is None


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (InvalidRequestError("no"), b"08P01"),
        (LimitError("no"), b"53300"),
        (UpstreamError("no"), b"57P03"),
        (DeniedError("no"), b"28000"),
    ],
)
def test_a_refusal_is_an_error_response(error: RemitError, state: bytes) -> None:
    message = session().refusal(error)
    assert message[:1] == b"E"
    assert int.from_bytes(message[1:5], "big") == len(message) - 1
    assert message[5:] == b"SFATAL\0VFATAL\0C" + state + b"\0Mremit: no\0\0"


def test_a_refusal_says_what_helps() -> None:
    assert b"Hissue one\0\0" in session().refusal(DeniedError("no", help="issue one"))
