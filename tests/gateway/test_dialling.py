"""What TLS offers upstreams: each context what it is for, and none tells its keys to a file."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from remit.gateway.dialling import Dialled, offers
from tests.attacks.certificates import authority


def agreed(client: ssl.SSLContext, server: ssl.SSLContext) -> str | None:
    """Return what both ends of a handshake agree on."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(back, there, server_hostname="localhost"),
        server.wrap_bio(there, back, server_side=True),
    ]
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(end)
    return ends[1].selected_alpn_protocol()


def test_what_speaks_no_http_is_offered_none(tmp_path: Path) -> None:
    ca = authority(tmp_path)
    server, made = ca.server("all"), offers(ca.trust)
    server.set_alpn_protocols(["h2", "http/1.1"])
    assert [agreed(each, server) for each in (made.nothing, made.http1, made.newer)] == [None, "http/1.1", "h2"]


def test_no_keys_are_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    ca = authority(tmp_path)
    made = offers(ca.trust)
    for each in (made.nothing, made.http1, made.newer):
        agreed(each, ca.server("any"))
    assert (tmp_path / "keys").read_bytes().count(b"SECRET") == 0


def test_few_destinations_are_remembered(tmp_path: Path) -> None:
    made = offers(authority(tmp_path).trust)
    places = [Dialled("api", "localhost", port, private=True) for port in range(2_000)]
    for place in places:
        made.note(place, alone=True)
    assert made.alone(places[-1])
    assert sum(map(made.alone, places)) <= 1_024
    made.note(places[-1], alone=False)
    assert not made.alone(places[-1])
