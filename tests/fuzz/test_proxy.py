"""Whatever a client of a proxy says of a host, by `CONNECT`, server name, absolute form or `Host`: one reading."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import InvalidRequestError, RemitError
from remit.gateway import framing
from remit.gateway.client_hello import server_name
from remit.gateway.fronts.proxy import HTTP, HostFront, ProxyFront, authority
from remit.gateway.intercept import Interception, unraisable
from remit.ports.runs import ReachedHost
from remit.run.certificate import reach
from tests.attacks.ways import proxies
from tests.gateway.rig import play

HOSTS = {"api.test": ReachedHost("api"), "else.test": ReachedHost("else", "/v1")}
NAMES = [b"api.test", b"API.test", b"else.test", b"evil.test", b"api.test.", b"127.0.0.1", b"[::1]", b"127.1", b"x"]
MARKS = [b":443", b":80", b":", b"443", b"@", b"/", b"//", b"\\", b"?", b"#", b"%2e", b"%00", b"\0", b".", b"-", b"_"]
MARKS += [b" ", b"\t", b"\r", b"\n", b",", b"*", b"\xc3\xa9", b"\xff", b"[", b"]", b"%25lo", b"0", b"x.", b"a:b@"]
names = st.one_of(st.sampled_from(NAMES), st.lists(st.sampled_from([*NAMES, *MARKS]), max_size=5).map(b"".join))
PATHS = [b"", b"/", b"/v1/x", b"/v1/..", b"/v1/%2e%2e/x", b"//evil.test/", b"/x?a=b", b"?a", b"/x#y", b"/@evil.test"]


@settings(max_examples=2000)
@given(st.one_of(names, names.map(lambda name: name + b":443")))
def test_the_authority_of_a_connect_is_read_as_others_read_it(raw: bytes) -> None:
    try:
        host, port = authority(raw)
    except RemitError:
        return
    assert raw.lower() == f"{host}:{port}".encode()
    read = httptools.parse_url(b"http://" + raw + b"/")
    parts = urlsplit("//" + raw.decode())
    assert (read.host.decode().lower(), read.port or HTTP) == (host, port)
    assert not read.userinfo
    assert (parts.hostname, parts.port, parts.username, parts.path) == (host, port, None, "")
    assert host.isascii()
    assert not set(host) & set("@/\\?#%:[]_ \0")


@settings(max_examples=2000)
@given(
    st.sampled_from([b"http://", b"https://", b"HTTP://", b"//", b"", b"http:"]),
    names,
    st.sampled_from(PATHS),
    st.data(),
)
def test_a_target_in_absolute_form_leads_where_others_read_it_to(
    scheme: bytes, name: bytes, path: bytes, data: st.DataObject
) -> None:
    raw, said = scheme + name + path, data.draw(st.one_of(st.just(name), names))
    try:
        method, target = framing.request_line(b"GET " + raw + b" HTTP/1.1")
        fields = framing.request_fields(b"Host: " + said)
        found = ProxyFront("grt_1", HOSTS).target(target, fields)
    except RemitError:
        return
    assert (method, target) == ("GET", raw)
    read, parts = httptools.parse_url(raw), urlsplit(raw.decode())
    host = read.host.decode().lower()
    assert host == parts.hostname
    assert (read.port or HTTP, parts.port or HTTP) == (HTTP, HTTP)
    assert not read.userinfo
    assert parts.username is None
    assert found.resource == HOSTS[host].resource
    assert said.lower().removesuffix(b":80") == host.encode()
    assert (HOSTS[host].base + found.path).encode() == (read.path or b"/")


@settings(max_examples=1500)
@given(st.lists(names, min_size=0, max_size=2), st.sampled_from([b"/", *PATHS, b"http://else.test/", b"*"]))
def test_a_connection_for_a_host_takes_no_request_that_names_another(hosts: list[bytes], raw: bytes) -> None:
    front = HostFront("grt_1", b"api.test", HOSTS["api.test"])
    try:
        _, target = framing.request_line(b"GET " + raw + b" HTTP/1.1")
        fields = framing.request_fields(b"\r\n".join(b"Host: " + host for host in hosts))
        front.check(fields)
        found = front.target(target, fields)
    except RemitError:
        return
    [host] = hosts
    assert host.strip(b" \t").lower() in {b"api.test", b"api.test:443"}
    assert found.resource == "api"
    assert raw.startswith(b"/")


@cache
def interception() -> Interception:
    now = datetime.now(UTC)
    return Interception(reach("run_1", HOSTS, now, now + timedelta(hours=1), {}), "grt_1", lambda front: front)  # type: ignore[arg-type, return-value]


@pytest.fixture(autouse=True)
def _as_in_an_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.unraisablehook", unraisable)


@cache
def client() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=interception()._reach.certificate)


def hello(name: bytes) -> bytes:
    """Write the first message of a client that wants a name, which need not be one."""
    stand_in = "n" * len(name)
    out = ssl.MemoryBIO()
    begun = client().wrap_bio(ssl.MemoryBIO(), out, server_hostname=stand_in)
    with pytest.raises(ssl.SSLWantReadError):
        begun.do_handshake()
    said = out.read()
    assert said.count(stand_in.encode()) == 1
    return said.replace(stand_in.encode(), name)


def served(said: bytes, context: ssl.SSLContext) -> ssl.SSLObject | None:
    """Return the server's end if it goes on with a client that said this, or None if it refuses."""
    incoming, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(said)
    server = context.wrap_bio(incoming, out, server_side=True)
    try:
        server.do_handshake()
    except ssl.SSLWantReadError:
        answer = out.read()
        return server if answer[:1] == b"\x16" else None  # a handshake message, and no alert
    except ssl.SSLError:
        return None
    raise AssertionError


@settings(max_examples=800, deadline=None)
@given(names.filter(lambda name: 6 <= len(name) < 64), st.sampled_from([None, *HOSTS]))
def test_only_the_server_name_of_a_host_gets_its_certificate(name: bytes, connected: str | None) -> None:
    """``connected``: the host of a `CONNECT` before it; None where the name alone says it."""
    context = interception().by_name if connected is None else interception().context(connected)
    found = served(hello(name), context)
    host = name.decode("latin-1").lower()
    allowed = host in HOSTS if connected is None else host == connected
    assert (found is not None) is allowed
    if found is not None and connected is None:
        assert interception().host_of(found) == host


hellos = st.builds(
    lambda name, flips, cut, doubled: _mutated(hello(name), flips, cut, doubled),
    st.sampled_from([b"api.test", b"else.test", b"evil.test"]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.one_of(st.none(), st.integers(0, 600)),
    st.one_of(st.none(), st.tuples(st.integers(0, 600), st.integers(1, 60))),
)


def _mutated(said: bytes, flips: list[tuple[int, int]], cut: int | None, doubled: tuple[int, int] | None) -> bytes:
    """Change octets, say a part twice, and end early."""
    changed = bytearray(said)
    for at, value in flips:
        changed[at % len(changed)] = value
    if doubled is not None:
        at, size = doubled
        changed[at:at] = changed[at : at + size]
    return bytes(changed[:cut])


@settings(max_examples=800, deadline=None)
@given(hellos)
def test_a_broken_hello_gets_no_certificate_but_that_of_the_name_in_it(said: bytes) -> None:
    found = served(said, interception().by_name)
    if found is not None and found.context is not interception().by_name:
        assert interception().host_of(found).encode() in said.lower()


def heard(said: bytes) -> list[str]:
    """Return the server names that OpenSSL reads."""
    found: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sni_callback = lambda _session, name, _context: found.append(name)
    served(said, context)
    return [name.lower() for name in found if name is not None]


@settings(max_examples=1500, deadline=None)
@given(hellos)
def test_a_hello_that_is_passed_on_names_the_host_that_its_server_will_read(said: bytes) -> None:
    """What goes on to a host in egress is judged by a reader of our own, and read there by OpenSSL or its like."""
    try:
        read = server_name(said)
    except InvalidRequestError:
        return
    assert heard(said) in ([], [read])


LINES = [b"CONNECT api.test:443 HTTP/1.1", b"CONNECT else.test:443 HTTP/1.0", b"CONNECT evil.test:443 HTTP/1.1"]
PIECES = [b"CONNECT ", b"connect ", b"GET ", b"api.test:443", b"api.test:80", b" HTTP/1.1", b" HTTP/2", b"\r\n", b"\n"]
PIECES += [b"\r\n\r\n", b"\0", b" ", b"Host: api.test", b"Content-Length: 5", b"http://evil.test/", b"\x16\x03\x01"]
connects = st.one_of(
    st.lists(st.sampled_from([*LINES, *PIECES]), max_size=8).map(b"".join),
    st.tuples(st.sampled_from(LINES), st.lists(st.sampled_from(PIECES[7:]), max_size=4)).map(
        lambda pair: pair[0] + b"\r\n" + b"".join(pair[1])
    ),
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(connects, st.lists(st.integers(1, 80), max_size=3))
def test_a_connection_is_established_by_one_line_alone_and_never_goes_out(raw: bytes, cuts: list[int]) -> None:
    async def scene() -> Any:
        async with proxies() as proxy:
            wire = await proxy.r.wire(proxy.ports[False])
            edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
            for start, end in pairwise(edges):
                await wire.send(raw[start:end])
            wire.writer.write_eof()
            said = await wire.rest()
            line = raw.partition(b"\r\n")[0]
            established = said.startswith(b"HTTP/1.1 200")
            assert not established or line in LINES[:2]
            if raw in {line + b"\r\n\r\n" for line in LINES[:2]}:
                assert established
            assert proxy.nothing_went_out()
            await proxy.r.settled(lambda: not proxy.r.gateway.connections.all)

    play(scene)


def test_the_pieces_reach_acceptance() -> None:
    """Keep the generators honest: their sane forms are accepted."""
    assert authority(b"api.test:443") == ("api.test", 443)
    fields = framing.request_fields(b"Host: API.test:80")
    assert ProxyFront("grt_1", HOSTS).target(b"http://API.test:80/v1/x", fields).path == "/v1/x"
    assert served(hello(b"API.test"), interception().by_name) is not None
    assert served(hello(b"nnnn.test"), interception().by_name) is None
    assert heard(hello(b"API.test")) == [server_name(hello(b"API.test"))] == ["api.test"]
