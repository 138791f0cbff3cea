"""Answers that would give the injected credential back."""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from examples.demo.canary import leaked
from tests.attacks.certificates import authority
from tests.gateway.rig import PLACEHOLDER, SECRET, Rig, play, rig
from tests.support.upstream import CODERS, SPECIALS, Upstream

HEADER_FORMS = (
    "error cookie etag www-authenticate link location refresh reason early-hints trailer".split()  # noqa: SIM905 - read as a line
)
COMPRESSED = [form for form in SPECIALS if form.startswith(("gzip", "zlib", "deflate", "br", "zstd", "plain-mis"))]
STREAMED = ["chunks", "sse", "sse-pieces", "until-close"]


def scan(outputs: Iterable[bytes]) -> dict[str, int]:
    """Look for the secret with a search that shares nothing with the gateway's."""
    return leaked({"secret": SECRET}, outputs)


async def raw_reply(r: Rig, target: str, *lines: str) -> bytes:
    """Return every byte of the answer to one request."""
    wire = await r.wire()
    await wire.send(r.request(target, "Connection: close", *lines))
    return await wire.rest()


async def alarmed(r: Rig, count: int) -> None:
    """Assert that the outcome of ``count`` requests on record is a failure."""
    outcomes = await r.outcomes(count)
    assert {(event.decision, event.code) for event in outcomes} == {("failed", "upstream")}


@pytest.mark.attack("RSP-01")
@pytest.mark.parametrize("form", CODERS)
def test_an_echo_in_any_listed_encoding_is_withheld(form: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            raw = await raw_reply(r, f"/api/echo/{form}")
            assert scan([raw]) == {}
            assert raw.startswith(b"HTTP/1.1 502 ")
            assert r.upstream.heard(SECRET) == 1
            await alarmed(r, 1)

    play(scene)


@pytest.mark.attack("RSP-01")
def test_an_echo_of_the_request_headers_as_json_is_withheld() -> None:
    async def scene() -> None:
        async with rig() as r:
            assert scan([await raw_reply(r, "/api/headers")]) == {}
            await alarmed(r, 1)

    play(scene)


@pytest.mark.attack("RSP-01")
def test_repeated_echoes_suspend_the_grant_and_those_below_it() -> None:
    async def scene() -> None:
        async with rig() as r:
            for _ in range(3):
                await r.get("/api/echo/plain")
            await r.outcomes(3)
            child = await r.child(
                {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/**"], "args": "any"}
            )
            for lines in ((), (f"Remit-Grant: {child.id}",)):
                reply = await r.get("/api/v1/x", *lines)
                assert (reply.status, reply.json()["code"]) == (403, "denied")
            assert len(r.upstream.seen) == 3

    play(scene)


@pytest.mark.attack("RSP-02")
@pytest.mark.parametrize("form", HEADER_FORMS)
def test_an_echo_in_a_head_a_trailer_or_an_error_is_withheld(form: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            raw = await raw_reply(r, f"/api/echo/{form}")
            assert scan([raw]) == {}
            await alarmed(r, 1)

    play(scene)


@pytest.mark.attack("RSP-03")
@pytest.mark.parametrize("asked", ["identity", "gzip", "deflate", "br", "zstd", "gzip;q=1.0, *;q=0.5"])
@pytest.mark.parametrize("form", COMPRESSED)
def test_a_compressed_echo_is_withheld_whatever_the_client_asks_for(form: str, asked: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            raw = await raw_reply(r, f"/api/echo/{form}", f"Accept-Encoding: {asked}")
            assert scan([raw]) == {}
            assert r.upstream.seen[0].headers["accept-encoding"] == "identity"
            await alarmed(r, 1)

    play(scene)


@pytest.mark.attack("RSP-03")
@pytest.mark.parametrize("form", STREAMED)
def test_an_echo_in_pieces_never_arrives_whole(form: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            raw = await raw_reply(r, f"/api/echo/{form}")
            assert scan([raw]) == {}
            await alarmed(r, 1)

    play(scene)


@pytest.mark.attack("RSP-04")
def test_partial_disclosure_is_a_known_residual_and_no_part_is_masked() -> None:
    """Masking parts would answer the question whether a guess is a part; so parts pass, and are counted here."""

    async def scene() -> None:
        async with rig() as r:
            parts = [SECRET[:8], SECRET[-4:], SECRET[: len(SECRET) // 2], SECRET[:-1]]
            passed = 0
            for index, part in enumerate(parts):
                r.upstream._routes[f"/part/{index}"] = (
                    f"HTTP/1.1 200 OK\r\nContent-Length: {len(part)}\r\n\r\n{part}".encode()
                )
                passed += (await r.get(f"/api/part/{index}")).body == part.encode()
            assert passed == len(parts)

    play(scene)


@pytest.mark.attack("RSP-05")
@pytest.mark.parametrize("debug", [False, True])
def test_errors_made_by_the_gateway_say_nothing_of_the_credential_or_the_machine(
    tmp_path: Path, *, debug: bool
) -> None:
    async def scene() -> None:
        asyncio.get_running_loop().set_debug(debug)
        ca = authority(tmp_path)
        bodies = [
            await _refused_connection(),
            await _bad_tls(ca.server("x"), ca.trust),
            await _timeout(),
            await _no_name(),
        ]
        assert scan(bodies) == {}
        for body in bodies:
            assert b"HTTP/1.1 502 " in body
            for word in (b"Traceback", b"/src/", b".py", b"Error", b"127.0.0.1", b"localhost", b"Bearer", b"invalid"):
                assert word not in body, body

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # debug mode looks at transports that were cut
        play(scene)


async def _refused_connection() -> bytes:
    async with rig() as r:
        await r.upstream.__aexit__(None, None, None)
        return await raw_reply(r, "/api/x")


async def _bad_tls(server: ssl.SSLContext, trust: Callable[[], ssl.SSLContext]) -> bytes:
    async with Upstream(tls=server) as up, rig(tls=trust, destination=f"https://127.0.0.1:{up.port}") as r:
        return await raw_reply(r, "/api/x")


async def _timeout() -> bytes:
    async with rig() as r:
        wire = await r.wire()
        await wire.send(r.request("/api/hold", "Connection: close"))
        await r.upstream.arrived.wait()
        r.ticks[0] = 1_000.0
        return await wire.rest()


async def _no_name() -> bytes:
    async with rig(destination="https://no-such-host.invalid") as r:
        return await raw_reply(r, "/api/x")


@pytest.mark.attack("RSP-06")
def test_nothing_that_is_logged_or_audited_holds_the_secret() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setLevel(logging.DEBUG)
    root = logging.getLogger()
    level = root.level

    async def scene() -> None:
        asyncio.get_running_loop().set_debug(True)
        async with rig(placeholders={}) as r:
            targets = ["/api/v1/x?q=1", "/api/status/500", "/api/drop", "/api/%2e", "/none/x", "/api/early"]
            for target in [*targets * 24, "/api/echo/plain", "/api/echo/sse"]:
                await raw_reply(r, target, f"Authorization: Bearer {PLACEHOLDER}")
            entries = [entry.leaf for entry in await r.store.entries(0, 10_000)]
            assert len(entries) > 140
            assert scan(entries) == {}
            assert r.upstream.heard(SECRET) > 50
            assert SECRET not in repr(r.pool.credential)

    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # debug mode looks at transports that were cut
            play(scene)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    text = out.getvalue()
    assert "repeated the credential" in text
    assert scan([text.encode()]) == {}
