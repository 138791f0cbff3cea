"""What a grant covers is the same behind a host: paths, methods, arguments, and whose grant it is."""

from __future__ import annotations

import pytest

from tests.attacks.ways import ASKED, proxies
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, http, play

KEY = f"Authorization: Bearer {PLACEHOLDER}"
OUTSIDE = [
    "/v1/public/../admin",
    "/v1/public/%2e%2e/admin",
    "/v1/public/.%2e/admin",
    "/v1/public/%2E%2E%2fadmin",
    "/v1/public/./a",
    "/v1/public/..",
    "/v1/public/..;/admin",
    "/v1/public/..%00/admin",
    "/v1/public%2fa",
    "/v1/public%5ca",
    "/v1/public\\..\\admin",
    "/v1/public/%u2215admin",
    "/v1/%70ublic/a",
    "//v1/public/a",
    "/v1//public/a",
    "/v1/public//a",
    "/v1/public/a;x=1",
    "/v1/admin",
    "/v1",
    "/",
    "",
    "?q=1",
    "/v1/public/a#b",
    "/v1/public/a?x=1&x=2#",
    "/v1/public/a b",
]


@pytest.mark.attack("GRA-01")
@pytest.mark.attack("GRA-02")
@pytest.mark.attack("GRA-03")
@pytest.mark.attack("GRA-04")
@pytest.mark.attack("GRA-08")
@pytest.mark.parametrize("target", OUTSIDE)
def test_no_spelling_of_a_path_leaves_a_grant_behind_a_host(target: str) -> None:
    async def scene() -> None:
        async with proxies(http(args="any")) as proxy:
            for way in ASKED:
                assert (await proxy.ask(way, "api.test", target, KEY)).status in {400, 403}, way
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("GRA-06")
@pytest.mark.attack("GRA-07")
@pytest.mark.parametrize("way", ASKED)
def test_methods_and_arguments_are_judged_behind_a_host(way: str) -> None:
    granted = http(paths=["/bytes/*"], args={"query.q": "cats"})

    async def scene() -> None:
        async with proxies(granted) as proxy:
            for query in (
                "q=dogs",
                "q=cats&q=dogs",
                "q[]=cats",
                "q=cats&x=1",
                "q=cats;x=1",
                "q=cats%26x",
                "Q=cats",
            ):
                assert (await proxy.ask(way, "api.test", f"/bytes/3?{query}", KEY)).status in {400, 403}, query
            for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "QUERY"):
                assert (await proxy.ask(way, "api.test", "/bytes/3?q=cats", KEY, method=method)).status == 403, method
            steered = await proxy.ask(way, "api.test", "/bytes/3?q=cats", KEY, "X-HTTP-Method-Override: DELETE")
            assert steered.status == 200
            assert [(one.method, one.target) for one in proxy.r.upstream.seen] == [("GET", "/bytes/3?q=cats")]
            assert "x-http-method-override" not in proxy.r.upstream.seen[0].headers

    play(scene)


@pytest.mark.attack("GRA-11")
@pytest.mark.parametrize("way", ASKED)
def test_a_sub_agents_grant_at_the_proxy_is_held_to_its_own_scope_and_to_the_subtree_of_the_run(way: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            r = proxy.r
            child, ended = await r.child(http(args="any")), await r.child(ALL)
            stranger, theirs = await r.opened(ALL), await r.child(ALL, jkt="R" * 43)
            await r.broker.revoke(OPERATOR, ended.id)

            async def status(named: str, path: str = "/v1/public/a", host: str = "api.test") -> int:
                return (await proxy.ask(way, host, path, KEY, f"Remit-Grant: {named}")).status

            for named in (ended.id, stranger.id, theirs.id, "grt_unknown", "", f"{child.id},{r.grant.id}", "*"):
                assert await status(named) in {400, 401, 403, 404}, named
            twice = (f"Remit-Grant: {child.id}", f"Remit-Grant: {r.grant.id}")
            assert (await proxy.ask(way, "api.test", "/v1/admin", KEY, *twice)).status == 400
            assert await status(child.id, "/v1/admin") == 403
            assert (await proxy.ask(way, "else.test", "/v1/public/a", f"Remit-Grant: {child.id}")).status == 403
            assert (
                await proxy.ask(way, "api.test", f"/@{r.grant.id}/v1/x", KEY, f"Remit-Grant: {child.id}")
            ).status == 403
            assert proxy.nothing_went_out()
            assert await status(child.id) == 200
            assert (r.upstream.heard(SECRET), r.upstream.heard(child.id)) == (1, 0)
            await r.broker.revoke(OPERATOR, child.id)
            assert await status(child.id) == 403
            assert len(r.upstream.seen) == 1

    play(scene)


@pytest.mark.attack("GRA-11")
def test_a_grant_that_a_connect_names_is_nobodys() -> None:
    """Fields of a `CONNECT` mean nothing: the requests inside say under which grant they are made."""

    async def scene() -> None:
        async with proxies(http(args="any")) as proxy:
            wider = await proxy.r.opened(ALL)
            wire = await proxy.r.wire(proxy.ports[False])
            lines = f"Remit-Grant: {wider.id}\r\nProxy-Authorization: Bearer {wider.id}"
            await wire.send(f"CONNECT api.test:443 HTTP/1.1\r\n{lines}\r\n\r\n".encode())
            assert (await wire.reply("HEAD")).status == 200
            await wire.writer.start_tls(proxy.trust(), server_hostname="api.test")
            await wire.send(proxy.request("connect", "api.test", "/v1/admin", KEY))
            assert (await wire.reply()).status == 403
            assert proxy.nothing_went_out()

    play(scene)
