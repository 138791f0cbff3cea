"""What whoever holds no token yet is told at the gateway's TCP listener: metadata (RFC 9728), challenges, CORS."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest

from remit.core import scope
from remit.core.principal import Holder
from remit.errors import TokenError
from remit.gateway.framing import request_fields
from remit.gateway.fronts.discovery import EXPOSED, Discovery
from remit.web.scope_templates import ScopeTemplate
from tests.gateway.rig import ALL, Reply, Rig, play, rig

ISSUER = "http://127.0.0.1:8470"
HALF = ScopeTemplate("half", scope.parse([{**ALL, "paths": ["/v1/**"]}]), "a part of it")
OWN = ScopeTemplate("api", scope.parse([ALL]), "all of it")
TOLD = Discovery(ISSUER, {"half": HALF, "api": OWN})
ORIGIN = "Origin: https://page.test"


async def _refused(_headers: Mapping[str, str], _method: str, _url: str, _resource: str) -> Holder:
    raise TokenError


async def _sent(r: Rig, method: str, target: str, *lines: str) -> Reply:
    wire = await r.wire(r.port)
    await wire.send("\r\n".join([f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{r.port}", *lines, "", ""]).encode())
    return await wire.reply()


def _challenges(answer: Reply) -> list[str]:
    return re.findall(r"\r\nWWW-Authenticate: ([^\r]*)", answer.raw.decode("latin-1"))


@pytest.mark.parametrize("place", ["", "/api", "/api/mcp", "/api/mcp/", "/nothing"])
def test_metadata_is_of_the_url_that_was_asked_for(place: str) -> None:
    async def scene() -> None:
        async with rig(verify=_refused, discovery=TOLD) as r:
            answer = await _sent(r, "GET", f"/.well-known/oauth-protected-resource{place}", ORIGIN)
            told = json.loads(answer.body)
            assert (answer.status, told["resource"]) == (200, f"http://127.0.0.1:{r.port}{place}")
            assert told["authorization_servers"] == [ISSUER]
            names = ["api", "half"] if place.startswith("/api") else None
            assert told.get("scopes_supported") == names
            assert answer.headers["access-control-allow-origin"] == "*"
            assert r.upstream.seen == []

    play(scene)


@pytest.mark.parametrize("place", ["/api/%22", "/@grt_1/api", "/Api", '/api"', "x", "/..", "/api/../x", "/api/."])
def test_nothing_is_said_of_what_is_no_plain_place(place: str) -> None:
    async def scene() -> None:
        async with rig(verify=_refused, discovery=TOLD) as r:
            assert (await _sent(r, "GET", f"/.well-known/oauth-protected-resource{place}")).status in {400, 401}

    play(scene)


def test_whoever_has_no_token_is_told_where_to_get_one_and_by_which_scope() -> None:
    async def scene() -> None:
        async with rig(verify=_refused, discovery=TOLD) as r:
            answer = await _sent(r, "POST", "/api/mcp?x=1", "Content-Length: 0")
            where = f'resource_metadata="http://127.0.0.1:{r.port}/.well-known/oauth-protected-resource/api/mcp"'
            assert answer.status == 401
            assert _challenges(answer)[0] == f'Bearer scope="api", {where}'
            assert _challenges(answer)[1].startswith("DPoP ")
            shown = await _sent(r, "POST", "/api/mcp", "Content-Length: 0", "Authorization: Bearer x")
            assert _challenges(shown)[0].startswith('Bearer error="invalid_token", scope="api", ')

    play(scene)


def test_whoever_holds_less_is_told_the_scopes_that_there_are_and_not_if_they_hold_all() -> None:
    async def scene() -> None:
        for held, told in (({**ALL, "paths": ["/v1/**"]}, True), (ALL, False)):
            grants: list[str] = []

            async def verify(_headers: object, _method: str, _url: str, _name: str, own: list[str] = grants) -> Holder:
                return Holder("task", own[0])

            async with rig(held, verify=verify, discovery=TOLD) as r:
                grants.append(r.grant.id)
                await r.gateway.plane.routes.compiled(r.grant.id, "api")
                answer = await _sent(r, "GET", "/api/v2/x" if told else "/other/x")
                assert answer.status == 403
                assert ("www-authenticate" in answer.headers) == told
                if told:
                    expected = 'Bearer error="insufficient_scope", scope="api half", resource_metadata='
                    assert answer.headers["www-authenticate"].startswith(expected)

    play(scene)


def test_a_page_of_any_origin_may_ask_and_read_without_what_browsers_add() -> None:
    async def scene() -> None:
        grants: list[str] = []

        async def verify(_headers: object, _method: str, _url: str, _name: str) -> Holder:
            return Holder("task", grants[0])

        async with rig(verify=verify, discovery=TOLD) as r:
            grants.append(r.grant.id)
            asked = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,mcp-method")
            allowed = await _sent(r, "OPTIONS", "/api/mcp", ORIGIN, *asked)
            assert (allowed.status, r.upstream.seen) == (204, [])
            assert allowed.headers["access-control-allow-headers"] == "authorization,mcp-method"
            strange = await _sent(r, "OPTIONS", "/api/mcp", ORIGIN, asked[0], "Access-Control-Request-Headers: a: b")
            assert strange.headers["access-control-allow-headers"] == "Authorization"
            answer = await _sent(r, "GET", "/api/v1/x", ORIGIN)
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-expose-headers"] == EXPOSED
            assert "access-control-allow-credentials" not in {**allowed.headers, **answer.headers}
            assert "access-control-allow-origin" not in (await _sent(r, "GET", "/api/v1/x")).headers

    play(scene)


def test_a_run_is_told_nothing_of_it() -> None:
    async def scene() -> None:
        async with rig(discovery=TOLD) as r:
            answer = await _sent(r, "GET", "/.well-known/oauth-protected-resource/api", ORIGIN)
            assert answer.status == 400
            assert "access-control-allow-origin" not in answer.headers

    play(scene)


def test_what_an_upstream_says_of_origins_is_not_passed_on() -> None:
    fields = request_fields(b"Host: a\r\nOrigin: https://page.test")
    head = (
        b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: https://x\r\nAccess-Control-Allow-Credentials: true\r\n\r\n"
    )
    shared = TOLD.shared(head, fields)
    assert shared.count(b"llow-") == 1
    assert b"Access-Control-Allow-Origin: *\r\n" in shared
    assert shared.endswith(b"\r\n\r\n")
    assert TOLD.shared(head, request_fields(b"Host: a")) == head


def test_at_the_endpoint_of_all_servers_the_scopes_are_those_for_servers_alone() -> None:
    calls = {"type": "mcp", "actions": ["tools/call"], "tools": "any"}
    one, two = ({**calls, "resource": name} for name in ("bank", "shop"))
    told = {
        "bank": ScopeTemplate("bank", scope.parse([one]), "the bank"),
        "work": ScopeTemplate("work", scope.parse([one, two]), "both"),
        "more": ScopeTemplate("more", scope.parse([one, ALL]), "something else too"),
        "api": OWN,
    }

    async def scene() -> None:
        async with rig(verify=_refused, discovery=Discovery(ISSUER, told)) as r:
            answer = await _sent(r, "GET", "/.well-known/oauth-protected-resource/mcp")
            found = json.loads(answer.body)
            assert found["resource"] == f"http://127.0.0.1:{r.port}/mcp"
            assert found["scopes_supported"] == ["work", "bank"]
            refused = await _sent(r, "POST", "/mcp", "Content-Length: 0")
            where = f'resource_metadata="http://127.0.0.1:{r.port}/.well-known/oauth-protected-resource/mcp"'
            assert (refused.status, _challenges(refused)[0]) == (401, f'Bearer scope="work", {where}')
            there = await _sent(r, "GET", "/.well-known/oauth-protected-resource/bank")
            assert json.loads(there.body)["scopes_supported"] == ["bank"]

    play(scene)
