"""The caller's own token goes nowhere but to remit: looked for at the upstream."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import quote

import pytest

from remit.core.principal import Holder
from remit.gateway import framing
from remit.gateway.downstream import Placeholders
from remit.gateway.patterns import LeakError
from remit.gateway.server import Channel
from tests.gateway.playbook import play as conversation
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, Rig, http, play, rig

TOKEN = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJ4IiwianRpIjoiMTIzNDU2Nzg5MCJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
EVERY = "".join(f"%{ord(char):02x}" for char in TOKEN)
SOME = "".join(f"%{ord(char):02X}" if index % 3 == 0 else char for index, char in enumerate(TOKEN))
SHOWN = f"Authorization: DPoP {TOKEN}"
SENT = {
    "query": ("GET", f"/api/x?q={TOKEN}", (), b""),
    "query, in the middle": ("GET", f"/api/x?q=a{TOKEN}b&c=d", (), b""),
    "name in a query": ("GET", f"/api/x?{TOKEN}=1", (), b""),
    "query, escaped": ("GET", f"/api/x?q={EVERY}", (), b""),
    "query, escaped in part": ("GET", f"/api/x?q={SOME}", (), b""),
    "path": ("GET", f"/api/x/{TOKEN}", (), b""),
    "user agent": ("GET", "/api/x", (f"User-Agent: agent {TOKEN}",), b""),
    "user agent, escaped": ("GET", "/api/x", (f"User-Agent: {EVERY}",), b""),
    "header that goes along": ("GET", "/api/x", (f"X-Trace: {TOKEN}",), b""),
    "header by Connection": ("GET", "/api/x", (f"If-Match: {TOKEN}", "Connection: if-match"), b""),
    "name of a header": ("GET", "/api/x", (f"{TOKEN}: x",), b""),
    "form": ("POST", "/api/x", ("Content-Type: application/x-www-form-urlencoded",), f"token={TOKEN}&a=b".encode()),
    "JSON": ("POST", "/api/x", ("Content-Type: application/json",), json.dumps({"a": [TOKEN]}).encode()),
    "other body": ("POST", "/api/x", ("Content-Type: text/plain",), b"x" * 5_000 + TOKEN.encode() + b"y" * 5_000),
}


async def verified(_rig: list[str], headers: Mapping[str, str]) -> Holder:
    assert headers["authorization"] == f"DPoP {TOKEN}"
    return Holder("task", _rig[0])


def scan(r: Rig) -> int:
    """Count what of the upstream's bytes holds the token."""
    return sum(TOKEN.encode() in seen.raw or TOKEN.encode() in seen.body for seen in r.upstream.seen)


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("in_run", [False, True])
@pytest.mark.parametrize("place", SENT)
def test_a_token_that_stands_elsewhere_too_is_not_sent_on(place: str, *, in_run: bool) -> None:
    method, target, lines, body = SENT[place]
    grants: list[str] = []

    async def verify(headers: Mapping[str, str], _method: str, _url: str, _resource: str) -> Holder:
        return await verified(grants, headers)

    async def scene() -> None:
        settings = {"headers": ["x-trace"]}
        async with rig(ALL, verify=verify, settings=settings) as r:
            grants.append(r.grant.id)
            port = await r.listen(Channel(r.grant.id, {})) if in_run else None
            for _ in range(2):
                reply = await r.get(target, SHOWN, *lines, method=method, body=body, port=port)
                assert (reply.status, reply.json()["code"]) == (403, "placeholder")
            assert [scan(r), r.upstream.heard(EVERY), r.upstream.heard(SOME)] == [0, 0, 0]
            clean = await r.get("/api/x?q=1", SHOWN, "User-Agent: agent", method="POST", body=b"clean", port=port)
            assert (clean.status, r.upstream.heard(SECRET), scan(r)) == (200, len(r.upstream.seen), 0)

    play(scene)


@pytest.mark.attack("LAU-08")
def test_a_token_in_a_judged_body_is_not_sent_on_even_in_escapes() -> None:
    grants: list[str] = []

    async def verify(headers: Mapping[str, str], _method: str, _url: str, _resource: str) -> Holder:
        return await verified(grants, headers)

    async def scene() -> None:
        async with rig(http(actions=["POST"], paths=["/**"], args={"body.t": "any"}), verify=verify) as r:
            grants.append(r.grant.id)
            escaped = "".join(f"\\u{ord(char):04x}" for char in TOKEN)
            for text in (TOKEN, escaped, f"a {TOKEN} b"):
                body = f'{{"t":"{text}"}}'.encode()
                reply = await r.get("/api/x", SHOWN, "Content-Type: application/json", method="POST", body=body)
                assert reply.status == 403
            assert r.upstream.seen == []

    play(scene)


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("cut", [1, 2, 30, len(TOKEN), len(TOKEN) + 1])
def test_a_token_in_a_streamed_body_never_gets_out_wherever_the_body_is_cut(cut: int) -> None:
    async def scene() -> None:
        async with conversation(http(actions=["GET", "POST"], args="any")) as p:
            body = b"<" + TOKEN.encode() + b">"
            head = f"POST /api/v1/public/a HTTP/1.1\r\nHost: gw\r\n{SHOWN}\r\nTransfer-Encoding: chunked\r\n\r\n"
            await p.client_says(head.encode() + b"%x\r\n%b\r\n" % (cut, body[:cut]))
            await p.client_says(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - cut, body[cut:]))
            assert b"eyJ" not in b"".join(p.upstream_hears(which) for which in range(len(p.lines)))
            assert [line.log[-1] for _, line in p.lines] == ["abort"]
            assert b" 403 " in p.client_hears()

    asyncio.run(scene())


def test_in_a_run_a_placeholder_is_still_looked_for_beside_a_token() -> None:
    async def scene() -> None:
        async with rig(ALL) as r:
            for body in (PLACEHOLDER, f"x{TOKEN}", quote(PLACEHOLDER)):
                assert (await r.get("/api/x", SHOWN, method="POST", body=body.encode())).status == 403
            assert [seen.body for seen in r.upstream.seen] == []

    play(scene)


def test_what_nobody_proved_and_does_not_look_like_a_token_is_anybody_s() -> None:
    fields = framing.request_fields(b"Host: a\r\nAuthorization: Bearer dummy-key-0123456789")
    assert Placeholders({}).scrubber(fields) is None
    scrubber = Placeholders({}, proven=True).scrubber(fields)
    assert scrubber is not None
    with pytest.raises(LeakError):
        scrubber.feed(b"dummy-key-0123456789")
    for shown in (b"", b"\r\nAuthorization: Bearer", b"\r\nAuthorization: Bearer short"):
        assert Placeholders({}, proven=True).scrubber(framing.request_fields(b"Host: a" + shown)) is None


def test_a_token_of_anybody_costs_no_forms_of_all_placeholders_again() -> None:
    placeholders = {f"r{n}": f"sk-proj-{n:02}{'aB3' * 40}" for n in range(32)}

    async def scene() -> None:
        async with rig(ALL) as r:
            await r.listen(Channel(r.grant.id, {"api": PLACEHOLDER, **placeholders}))
            port = await r.listen(Channel(r.grant.id, {"api": PLACEHOLDER, **placeholders}))
            start = time.thread_time()
            for number in range(10):
                shown = f"Authorization: Bearer eyJ{number:016}"
                assert (await r.get("/api/x", shown, method="POST", body=b"x", port=port)).status == 200
            assert time.thread_time() - start < 0.2

    play(scene)


PLACES = {
    "path": ("GET", f"/api/x/{PLACEHOLDER}", (), b""),
    "query": ("GET", f"/api/x?key={PLACEHOLDER}", (), b""),
    "query of all kinds": ("GET", "/api/x?key=" + "".join(f"%{ord(char):02x}" for char in PLACEHOLDER), (), b""),
    "header `x-api-key`": ("GET", "/api/x", (f"X-Api-Key: {PLACEHOLDER}",), b""),
    "header `authorization`": ("GET", "/api/x", (f"Authorization: Basic {PLACEHOLDER}",), b""),
    "headers": ("GET", "/api/x", (f"{PLACEHOLDER}: 1",), b""),
    "body": ("POST", "/api/x", (), f'{{"key": "{PLACEHOLDER}"}}'.encode()),
    "body in base64": ("POST", "/api/x", (), b64encode(f"key={quote(PLACEHOLDER)}".encode())),
}


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("place", PLACES)
def test_a_misplaced_placeholder_alarms_and_is_told_its_right_place(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, target, lines, body = PLACES[place]

    async def scene() -> None:
        async with rig(ALL, settings={"provider": "openai"}) as r:
            replies = [await r.get(target, *lines, method=method, body=body) for _ in range(3)]
            where = place.partition(" in ")[0].partition(" of ")[0]
            for reply in replies:
                said = reply.json()
                assert (reply.status, said["code"]) == (403, "placeholder")
                assert said["detail"] == f"a placeholder or a token of remit's stands in the {where}"
                assert "`Authorization: Bearer …`, as a client does that reads `OPENAI_API_KEY`" in str(said["help"])
                assert PLACEHOLDER.encode() not in reply.body
            assert r.upstream.seen == []
            if body:
                await r.outcomes(3)
            refused = [event for event in await r.events() if event.code == "placeholder"]
            assert len(refused) == 3
            told = [record for record in caplog.records if "a placeholder" in record.message]
            assert [record.levelname for record in told] == ["WARNING"]  # once for a grant and a place
            assert (r.grant.id in told[0].message, f"the {where}" in told[0].message) == (True, True)
            assert PLACEHOLDER not in caplog.text

    play(scene)


def test_a_placeholder_twice_in_its_right_place_is_once_too_often() -> None:
    async def scene() -> None:
        async with rig(ALL, settings={"provider": "anthropic"}) as r:
            once = await r.get("/api/x", f"X-Api-Key: {PLACEHOLDER}", f"Authorization: Bearer {PLACEHOLDER}")
            twice = await r.get("/api/x", f"X-Api-Key: {PLACEHOLDER}", f"X-Api-Key: {PLACEHOLDER}")
            assert (once.status, twice.status) == (200, 403)

    play(scene)
