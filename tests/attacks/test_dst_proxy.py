"""Where a run's proxy leads: to the resources of its hosts, however a host is named."""

from __future__ import annotations

import ssl

import pytest

from remit.gateway.intercept import unraisable
from tests.attacks.ways import ASKED, OTHER_PLACEHOLDER, Proxies, proxies
from tests.gateway.rig import OTHER_SECRET, PLACEHOLDER, SECRET, play
from tests.support.upstream import Sink

KEY, OTHER_KEY = f"Authorization: Bearer {PLACEHOLDER}", f"Authorization: Bearer {OTHER_PLACEHOLDER}"
# `%p` is a port at which somebody listens on loopback.
ELSEWHERE = [
    "evil.test:443",
    "evil.test:%p",
    "api.test:%p",
    "api.test:80",
    "api.test:8443",
    "api.test:0443",
    "api.test:+443",
    "api.test:443:443",
    "api.test:",
    "api.test:99999",
    "api.test",
    ":443",
    "127.0.0.1:%p",
    "localhost:%p",
    "localhost:443",
    "127.1:%p",
    "2130706433:%p",
    "0x7f000001:%p",
    "0177.0.0.1:%p",
    "0:%p",
    "0.0.0.0:%p",
    "[::1]:%p",
    "[::ffff:127.0.0.1]:%p",
    "[::1%25lo]:%p",
    "[fe80::1%25eth0]:443",
    "[fe80::1%eth0]:443",
    "169.254.169.254:80",
    "169.254.169.254:443",
    "[fd00:ec2::254]:443",
    "100.100.100.200:443",
    "192.0.0.192:443",
    "metadata.google.internal:443",
    "user@api.test:443",
    "user:pass@api.test:443",
    "api.test@127.0.0.1:%p",
    "api.test:443@127.0.0.1:%p",
    "api.test\\@127.0.0.1:%p",
    "api.test#@127.0.0.1:%p",
    "api.test%00.evil.test:443",
    "api.test/../127.0.0.1:%p",
    "//127.0.0.1:%p",
    "http://api.test:443",
    "api.test.:443",
    "api..test:443",
    ".api.test:443",
    "-api.test:443",
    "api.test.evil.test:443",
    "x.api.test:443",
    "*.test:443",
    "api%2etest:443",
    "%61pi.test:443",
    "api_.test:443",
    "\u0430pi.test:443",
    "\u24d0pi.test:443",
    "api\u3002test:443",
    "ap\u00adi.test:443",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:%p",
    "xn--pi-7ba.test:443",
]


async def refused(proxy: Proxies, raw: bytes) -> None:
    """Assert that bytes are answered with a refusal, whatever it is, and that nothing goes out."""
    wire = await proxy.r.wire(proxy.ports[False])
    await wire.send(raw)
    said = await wire.rest()
    assert said.split(b" ")[1] in {b"400", b"403", b"405"}, (raw, said)
    assert proxy.nothing_went_out(), raw


@pytest.mark.attack("DST-01")
@pytest.mark.attack("DST-02")
@pytest.mark.attack("DST-03")
@pytest.mark.attack("DST-04")
@pytest.mark.parametrize("authority", ELSEWHERE)
def test_no_spelling_of_an_authority_leads_out_of_a_run(authority: str) -> None:
    async def scene() -> None:
        async with Sink() as sink, proxies() as proxy:
            place = authority.replace("%p", str(sink.port)).encode()
            for host in (place, b"api.test", b"api.test:443"):
                tail = b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + KEY.encode() + b"\r\n\r\n"
                await refused(proxy, b"CONNECT " + place + tail)
                if place != b"api.test:80":  # in the clear this is the host's own port
                    await refused(proxy, b"GET http://" + place + b"/latest" + tail)
            assert (sink.connections, proxy.nothing_went_out()) == (0, True)

    if authority != "api.test":
        play(scene)


@pytest.mark.attack("DST-01")
@pytest.mark.parametrize("way", ["connect", "name"])
def test_a_connection_for_one_host_leads_to_no_other(way: str) -> None:
    """`SNI` or `CONNECT` says one host and `Host` another: of both the run may reach, neither is asked."""

    async def scene() -> None:
        async with proxies() as proxy:
            table = {
                "else.test": 421,
                "evil.test": 421,
                "api.test:80": 421,
                "api.test:8443": 421,
                "api.test.": 421,
                "api.test@else.test": 421,
                "x.api.test": 421,
                "127.0.0.1": 421,
                "": 421,
                "api.test, else.test": 421,
                "api.test\r\nHost: else.test": 400,
                "api.test\r\nHost: api.test": 400,
            }
            for host, status in table.items():
                wire = await proxy.open(way, "api.test")
                await wire.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n{KEY}\r\n\r\n".encode())
                assert (await wire.reply()).status in {status, 400}, host
                wire.close()
            wire = await proxy.open(way, "api.test")
            await wire.send(f"GET /x HTTP/1.1\r\n{KEY}\r\n\r\n".encode())  # no Host at all
            assert (await wire.reply()).status in {400, 421}
            for target in ("http://else.test/x", "https://else.test/x", "//else.test/x", "@else.test/x", "*"):
                reply = await proxy.ask(way, "api.test", target, KEY)
                assert reply.status in {400, 403}, target
            assert proxy.nothing_went_out()
            forwarded = ["X-Forwarded-Host: else.test", "Forwarded: host=else.test", "X-Host: else.test", KEY]
            assert (await proxy.ask(way, "api.test", "/x", *forwarded)).status == 200
            assert (await proxy.ask(way, "API.test", "/x", KEY)).status == 200
            assert (proxy.r.upstream.heard(SECRET), proxy.other.seen) == (2, [])
            assert b"else.test" not in proxy.r.upstream.seen[0].raw

    play(scene)


@pytest.mark.attack("DST-01")
def test_a_target_in_absolute_form_and_its_host_are_one() -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            for host in ("else.test", "evil.test", "api.test:443", "api.test.", "", "api.test\r\nHost: else.test"):
                wire = await proxy.r.wire(proxy.ports[False])
                await wire.send(f"GET http://api.test/x HTTP/1.1\r\nHost: {host}\r\n{KEY}\r\n\r\n".encode())
                assert (await wire.reply()).status == 400, host
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("DST-01")
@pytest.mark.parametrize(("connected", "named"), [("api.test", "else.test"), ("else.test", "api.test")])
@pytest.mark.parametrize("careless", [False, True])
def test_the_server_name_in_a_connection_is_that_of_its_connect(connected: str, named: str, *, careless: bool) -> None:
    """Whether the client looks at certificates or not."""

    async def scene() -> None:
        async with proxies() as proxy:
            wire = await proxy.r.wire(proxy.ports[False])
            await wire.send(f"CONNECT {connected}:443 HTTP/1.1\r\nHost: {named}:443\r\n\r\n".encode())
            assert (await wire.reply("HEAD")).status == 200
            trust = proxy.trust()
            if careless:
                trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await wire.writer.start_tls(trust, server_hostname=named)
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("DST-03")
@pytest.mark.parametrize("name", ["evil.test", "api.test.evil.test", "x.api.test", "metadata.google.internal", "test"])
def test_a_server_name_that_is_none_of_the_runs_gets_no_certificate(name: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await proxy.open("name", name)
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("DST-04")
@pytest.mark.attack("DOS-14")
@pytest.mark.parametrize(
    "name", [b"\xc3\xa9pi.test", b"api\0test", b"api.test.", b"%61pi.tst", b"api\xe3\x80\x82tt", b"[::1].tt"]
)
def test_a_server_name_that_is_no_name_is_refused_and_written_nowhere(
    name: bytes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.unraisablehook", unraisable)  # as an edge does

    async def scene() -> None:
        async with proxies() as proxy:
            wire = await proxy.r.wire(proxy.ports[True])
            out = ssl.MemoryBIO()
            begun = proxy.trust().wrap_bio(ssl.MemoryBIO(), out, server_hostname="n" * len(name))
            with pytest.raises(ssl.SSLWantReadError):
                begun.do_handshake()
            await wire.send(out.read().replace(b"n" * len(name), name))
            assert (await wire.rest())[:1] in {b"", b"\x15"}  # an alert, or the end
            assert proxy.nothing_went_out()

    play(scene)
    assert capfd.readouterr() == ("", "")


@pytest.mark.attack("DST-03")
def test_tls_without_a_server_name_gets_no_certificate() -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            careless = ssl.create_default_context()
            careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
            wire = await proxy.r.wire(proxy.ports[True])
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await wire.writer.start_tls(careless)
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("DST-07")
@pytest.mark.parametrize("way", ASKED)
def test_each_host_gets_the_key_of_its_own_resource_and_no_placeholder_of_another(way: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            for host, line in (("else.test", KEY), ("api.test", OTHER_KEY)):
                for at in (line, line.replace("Authorization: Bearer", "X-Api-Key:"), line.replace("Bearer", "Basic")):
                    reply = await proxy.ask(way, host, "/x", at)
                    assert (reply.status, reply.json()["code"]) == (403, "placeholder")
                placeholder = line.rpartition(" ")[2]
                for target in (f"/x?key={placeholder}", f"/{placeholder}"):
                    assert (await proxy.ask(way, host, target)).status == 403
                posted = await proxy.ask(
                    way, host, "/x", "Content-Type: text/plain", body=placeholder.encode(), method="POST"
                )
                assert posted.status == 403
            assert (proxy.r.upstream.heard(SECRET), proxy.other.heard(OTHER_SECRET)) == (0, 0)
            assert proxy.r.upstream.heard(PLACEHOLDER) + proxy.r.upstream.heard(OTHER_PLACEHOLDER) == 0
            assert proxy.other.heard(PLACEHOLDER) + proxy.other.heard(OTHER_PLACEHOLDER) == 0

    play(scene)


@pytest.mark.attack("DST-07")
@pytest.mark.parametrize("way", ASKED)
def test_a_host_leads_to_its_own_resource(way: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            assert (await proxy.ask(way, "api.test", "/bytes/3", KEY)).status == 200
            assert (await proxy.ask(way, "else.test", "/bytes/3", OTHER_KEY)).status == 200
            assert [one.headers["authorization"] for one in proxy.r.upstream.seen] == [f"Bearer {SECRET}"]
            assert [one.headers["authorization"] for one in proxy.other.seen] == [f"Bearer {OTHER_SECRET}"]

    play(scene)
