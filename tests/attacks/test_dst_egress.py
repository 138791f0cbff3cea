"""Where the hosts that a run reaches itself lead: to those that its grant names, however a host is named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from remit.gateway.intercept import unraisable
from tests.gateway.rig import Wire, http, play
from tests.gateway.test_client_hello import extension, hello, named, of_openssl
from tests.gateway.test_tunnel_pipe import ALERT, CONNECT, HOST, NPM, Town, answering, town
from tests.support.upstream import Sink

BELOW = "x.files.example"  # of `*.files.example`, which the grant names
# `%p` is a port at which somebody listens on loopback.
ELSEWHERE = [
    "evil.example:443",
    f"{HOST}:%p",
    f"{HOST}:80",
    f"{HOST}:8443",
    f"{HOST}:0443",
    f"{HOST}:+443",
    f"{HOST}:443:443",
    f"{HOST}:",
    f"{HOST}:65979",  # 443 in sixteen bits
    HOST,
    f"{HOST}.:443",
    f".{HOST}:443",
    f"{HOST}.evil.example:443",
    f"evil.{HOST}:443",
    f"evil.example%00.{BELOW}:443",
    f"evil.example\0.{BELOW}:443",
    f"evil.example#.{BELOW}:443",
    f"evil.example/.{BELOW}:443",
    f"evil.example\\.{BELOW}:443",
    f"evil.example?.{BELOW}:443",
    f"evil.example:443@{BELOW}:443",
    f"{BELOW}@evil.example:443",
    f"{BELOW},evil.example:443",
    f"{BELOW}:443,evil.example:443",
    f"x..{BELOW}:443",
    f"{'a' * 64}.files.example:443",
    f"{'a.' * 130}files.example:443",
    "*.files.example:443",
    "files.example:443",
    "xfiles.example:443",
    "files.example.:443",
    f"a_b.{BELOW}:443",
    f"\u0430.{BELOW}:443",
    "x\u3002files.example:443",
    f"ap\u00adi.{BELOW}:443",
    "127.0.0.1:443",
    "127.0.0.1:%p",
    "localhost:443",
    "localhost:%p",
    "127.1:%p",
    "2130706433:%p",
    "0x7f000001:%p",
    "0177.0.0.1:%p",
    "0:%p",
    "0.0.0.0:%p",
    "[::1]:443",
    "[::1]:%p",
    "[::ffff:127.0.0.1]:%p",
    "[::ffff:7f00:1]:443",
    "[64:ff9b::7f00:1]:443",
    "[fe80::1%25lo]:443",
    "[fd00:ec2::254]:443",
    "169.254.169.254:443",
    "100.100.100.200:443",
    "metadata.google.internal:443",
    "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460:443",
    f"https://{HOST}:443",
    f"//{HOST}:443",
]


@pytest.mark.attack("DST-01")
@pytest.mark.attack("DST-02")
@pytest.mark.attack("DST-03")
@pytest.mark.attack("DST-04")
@pytest.mark.attack("DST-11")
@pytest.mark.parametrize("authority", ELSEWHERE)
def test_no_spelling_of_an_authority_leads_out_by_egress(authority: str) -> None:
    lookup, asked = answering(["127.0.0.1"])

    async def scene() -> None:
        async with Sink() as sink, town(lookup=lookup, settings={"at": "router.example:{}", "private": True}) as t:
            place = authority.replace("%p", str(sink.port)).encode()
            for host in (place, HOST.encode(), b"x.files.example:443"):
                wire = await t.rig.wire(t.proxy)
                await wire.send(b"CONNECT " + place + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
                assert (await wire.rest()).split(b" ")[1] in {b"400", b"403"}
            assert (sink.connections, t.registry.names, asked) == (0, [], [])

    play(scene)


@pytest.mark.attack("DST-01")
def test_nothing_that_a_connect_says_beside_its_target_leads_elsewhere() -> None:
    async def scene() -> None:
        async with Sink() as sink, town() as t:
            wire = await t.rig.wire(t.proxy)
            lines = f"Host: evil.example:443\r\nForwarded: host=127.0.0.1:{sink.port}\r\nX-Forwarded-Host: evil.example"
            await wire.send(f"CONNECT {HOST}:443 HTTP/1.1\r\n{lines}\r\n\r\n".encode())
            assert (await wire.reply("HEAD")).status == 200
            await wire.writer.start_tls(t.registry.trusting(), server_hostname=HOST)
            await wire.send(b"a")
            assert await wire.reader.readexactly(1) == b"A"
            assert (t.registry.names, sink.connections) == ([HOST], 0)

    play(scene)


NAMES = {
    "another host": b"evil.example",
    "the name without what is below it": b"files.example",
    "a pattern": b"*.files.example",
    "NUL": b"evil.example\0.files.example",
    "NUL behind an address": b"93.184.215.14\0.files.example",
    "a blank": b"93.184.215.14 .files.example",
    "a line": b"93.184.215.14\n.files.example",
    "a tab": b"evil.example\t.files.example",
    "userinfo": b"evil.example@x.files.example",
    "userinfo before": b"x.files.example@evil.example",
    "a path": b"evil.example/.files.example",
    "a backslash": b"evil.example\\.files.example",
    "a fragment": b"evil.example#.files.example",
    "a port": b"evil.example:443.files.example",
    "a percent": b"evil.example%00.files.example",
    "a zone": b"fe80::1%lo.files.example",
    "an address": b"93.184.215.14",
    "an address of IPv6": b"2606:4700::1111",
    "an address in brackets": b"[2606:4700::1111].files.example",
    "a dot at its end": b"x.files.example.",
    "a dot at its beginning": b".x.files.example",
    "dots alone": b"...files.example",
    "an empty label": b"x..files.example",
    "a long label": b"a" * 64 + b".files.example",
    "a long name": b"a." * 121 + b"files.example",
    "a name as long as a record": b"a." * 8_000 + b"files.example",
    "an underscore": b"a_b.files.example",
    "UTF-8": "\u0430.files.example".encode(),
    "another full stop": "x\u3002files.example".encode(),
    "Latin-1": b"\xe9.files.example",
    "escapes of a terminal": b"\x1b[2J.files.example",
    "nothing": b"",
}


@pytest.mark.attack("DST-11")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_no_spelling_of_a_server_name_leads_out_by_egress(name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver ends a name at NUL, and so it would lead to whatever stands before."""
    monkeypatch.setattr("sys.unraisablehook", unraisable)  # as an edge does
    lookup, asked = answering(["127.0.0.1"])
    first = hello(named(name), extension(43, b"\x02\x03\x04"))

    async def scene() -> None:
        async with town(lookup=lookup, settings={"at": "router.example:{}", "private": True}, tls=False) as t:
            for wire in (await t.rig.wire(t.https), await t.established(), await t.established(BELOW)):
                await wire.send(first)
                assert (await wire.rest())[:1] in {b"", b"\x15"}  # an alert, or the end
            assert t.registry.seen == []
            assert asked == [f"router.example:{t.registry.port}"] * 2  # of the two ``CONNECT``
            uses = {use[1] for use in await t.uses() if use[0] != "failed"}
            assert uses <= {f"connect {HOST}", f"connect {BELOW}"}

    play(scene)


PRIVATE: list[Sequence[str]] = [
    ["127.0.0.1"],
    ["127.255.255.254"],
    ["169.254.169.254"],
    ["10.0.0.1"],
    ["172.31.255.255"],
    ["192.168.0.1"],
    ["100.100.100.200"],
    ["192.0.0.192"],
    ["198.18.0.1"],
    ["224.0.0.1"],
    ["240.0.0.1"],
    ["255.255.255.255"],
    ["0.0.0.0"],  # noqa: S104 - nothing is bound
    ["::"],
    ["::1"],
    ["::127.0.0.1"],
    ["::ffff:127.0.0.1"],
    ["::ffff:0:127.0.0.1"],
    ["64:ff9b::7f00:1"],
    ["64:ff9b:1::7f00:1"],
    ["2002:7f00:1::"],
    ["2001:0:7f00:1::1"],
    ["fd00:ec2::254"],
    ["fec0::1"],
    ["fe80::1%1"],
    ["ff02::1"],
    ["2606:4700::1111%1"],
    ["2606:4700::200:5efe:7f00:1"],
    ["93.184.215.14", "127.0.0.1"],
    ["93.184.215.14", "::1"],
    ["2606:4700::1111", "10.0.0.1"],
]


@pytest.mark.attack("DST-03")
@pytest.mark.attack("DST-05")
@pytest.mark.parametrize("addresses", PRIVATE)
@pytest.mark.parametrize("by_name", [False, True], ids=["connect", "name"])
def test_a_host_of_egress_that_leads_inside_is_connected_to_by_neither_way(
    addresses: Sequence[str], *, by_name: bool
) -> None:
    lookup, asked = answering(addresses, ["93.184.215.14"])  # what a second look would find

    async def scene() -> None:
        async with town(lookup=lookup, settings={}) as t:
            wire = await t.rig.wire(t.https if by_name else t.proxy)
            await wire.send(of_openssl(HOST) if by_name else CONNECT)
            said = await wire.rest()
            assert said == ALERT + b"\x50" if by_name else said.startswith(b"HTTP/1.1 502 ")
            assert asked == [f"{HOST}:443"]
            assert (t.registry.names, [use[0] for use in await t.uses()]) == ([], ["allow", "failed"])

    play(scene)


@pytest.mark.attack("DST-03")
@pytest.mark.attack("DST-05")
@pytest.mark.parametrize("by_name", [False, True], ids=["connect", "name"])
def test_a_host_that_leads_inside_the_second_time_is_looked_at_the_second_time(*, by_name: bool) -> None:
    """Each connection is resolved once, and goes to what was looked at (a rebinding between the two finds nothing)."""
    lookup, asked = answering(["192.0.2.1"], ["127.0.0.1"])

    async def twice(t: Town) -> list[bytes]:
        said = []
        for _ in range(2):
            wire = await t.rig.wire(t.https if by_name else t.proxy)
            await wire.send(of_openssl(HOST) if by_name else CONNECT)
            said.append(await wire.rest())
        return said

    async def scene() -> None:
        async with town(lookup=lookup, settings={}) as t:
            assert all(said[:12] in {b"HTTP/1.1 502", ALERT + b"\x50"} for said in await twice(t))
            assert len(asked) == 2
            assert t.registry.names == []

    play(scene)


@pytest.mark.attack("DST-03")
@pytest.mark.attack("GRA-11")
@pytest.mark.parametrize("by_name", [False, True], ids=["connect", "name"])
def test_a_host_that_the_grant_has_not_is_not_even_resolved(*, by_name: bool) -> None:
    """A name that is asked for is a way out for data, too. What a ``CONNECT`` names as its grant is nobody's."""
    lookup, asked = answering(["127.0.0.1"])

    async def scene() -> None:
        async with town({**NPM, "hosts": [HOST]}, http(), lookup=lookup) as t:
            wider = (await t.rig.opened({**NPM, "hosts": [HOST, "*.files.example"]})).id
            wire: Wire = await t.rig.wire(t.https if by_name else t.proxy)
            lines = f"Remit-Grant: {wider}\r\nProxy-Authorization: Bearer {wider}\r\n"
            asking = f"CONNECT {BELOW}:443 HTTP/1.1\r\n{lines}\r\n".encode()
            await wire.send(of_openssl(BELOW) if by_name else asking)
            said = await wire.rest()
            assert said == ALERT + b"\x31" if by_name else said.startswith(b"HTTP/1.1 403 ")
            assert (asked, t.registry.names) == ([], [])
            assert [use[0] for use in await t.uses()] == ["deny"]

    play(scene)


@pytest.mark.attack("HTT-01")
@pytest.mark.parametrize("by_name", [False, True], ids=["connect", "name"])
def test_a_server_name_behind_the_first_counts_for_nobody_here(*, by_name: bool) -> None:
    """Two records that each name a host, in one piece and in two: the first one is what was judged, and goes first."""

    async def scene() -> None:
        async with town(tls=False) as t:
            for cut in (0, 5, len(of_openssl(HOST))):
                both = of_openssl(HOST) + of_openssl("evil.example")
                wire = await t.rig.wire(t.https) if by_name else await t.established()
                for piece in filter(None, (both[:cut], both[cut:])):
                    await wire.send(piece)
                    await asyncio.sleep(0)
                assert (await wire.reader.readexactly(len(both))) == both.upper()
                wire.close()
            refused = await t.rig.wire(t.https) if by_name else await t.established()
            await refused.send(of_openssl("evil.example") + of_openssl(HOST))
            assert (await refused.rest())[:1] in {b"", b"\x15"}
            assert b"".join(t.registry.seen).count(b"evil.example") == 3

    play(scene)
