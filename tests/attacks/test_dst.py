"""Where a credential may go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.gateway.server import Channel
from remit.gateway.target import HttpTarget, read_destination
from remit.ports import Resource
from tests.attacks.certificates import authority
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import ALL, OTHER_SECRET, SECRET, http, play, rig
from tests.support.upstream import Sink, Upstream


@pytest.mark.attack("DST-01")
def test_the_host_header_chooses_no_destination() -> None:
    async def scene() -> None:
        async with Upstream() as evil, rig() as r:
            bound = details({**ALL, "resource": "evil"})
            await r.broker.put_resource(
                OPERATOR, Resource("evil", "http", evil.url, bound, None, {}), Secret(OTHER_SECRET)
            )
            for host in (
                f"127.0.0.1:{evil.port}",
                "evil.test",
                f"127.0.0.1:{r.upstream.port}",
                "127.0.0.1",
                "localhost",
            ):
                wire = await r.wire()
                await wire.send(f"GET /api/x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                assert (await wire.reply()).status == 421
            absolute = await r.get(f"http://127.0.0.1:{evil.port}/api/x")
            connect = await r.get(f"127.0.0.1:{evil.port}", method="CONNECT")
            assert (absolute.status, connect.status, evil.seen) == (400, 405, [])
            forwarded = ["X-Forwarded-Host: evil.test", "Forwarded: host=evil.test", "X-Original-URL: /admin"]
            await r.get("/api/x", *forwarded)
            other = await r.opened({**ALL, "resource": "evil"})
            await r.get("/evil/x", port=await r.listen(Channel(other.id, {})))
            assert r.upstream.heard(SECRET) == 1
            assert (evil.heard(SECRET), evil.heard(OTHER_SECRET)) == (0, 1)
            assert r.upstream.seen[-1].headers["host"] == f"127.0.0.1:{r.upstream.port}"
            assert b"evil.test" not in r.upstream.seen[-1].raw

    play(scene)


@pytest.mark.attack("DST-02")
def test_no_target_reaches_another_authority() -> None:
    async def scene() -> None:
        async with Sink() as evil, rig() as r:
            place = f"127.0.0.1:{evil.port}"
            for target in (
                f"@{place}/",
                f"/@{place}/",
                f"\\\\@{place}",
                f"/\\@{place}",
                f"http:{place}",
                f"//{place}",
                f"///{place}/",
                f"/api@{place}/x",
                f"/api.{place}/x",
                f".{place}",
                f"/api:80@{place}/",
            ):
                reply = await r.get(target)
                assert reply.status in {400, 403}, target
            assert r.upstream.seen == []
            kept = await r.get(f"/api/x@{place}")
            assert kept.json()["target"] == f"/x@{place}"
            assert (evil.connections, r.upstream.heard(SECRET)) == (0, 1)

    play(scene)


@pytest.mark.attack("DST-02")
@pytest.mark.parametrize(
    "text",
    [
        "https://api.test@evil.test",
        "https://api.test\\@evil.test",
        "https://api.test/..",
        "https://api.test/a/../b",
        "https://api.test/",
        "https://api.test?x",
        "https://api.test#x",
        "https:api.test",
        "//api.test",
        "https://api.test:0",
        "https://api.test:70000",
        "https://api.test:80:80",
        "HTTPS://api.test",
        "ftp://api.test",
        "http://api.test",
        "http://10.0.0.1",
        "https://api.test/%2e",
        "https://api.test/a b",
        "https://[::1",
        "",
    ],
)
def test_a_destination_that_reads_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_destination(text)


@pytest.mark.attack("DST-04")
@pytest.mark.parametrize(
    "host",
    [
        "\u24d0pi.example.com",
        "api\u3002example\u3002com",
        "\u0430pi.example.com",
        "api\u00ad.example.com",
        "api.example.com.",
        "API.example.com",
        "api%2eexample.com",
        "\u2460\u2461\u2466.\u24ea.\u24ea.\u2460",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "api..example.com",
        "-api.example.com",
        "api_.example.com",
    ],
)
def test_a_host_is_an_ascii_name_in_one_spelling(host: str) -> None:
    with pytest.raises(InvalidRequestError):
        read_destination(f"https://{host}")


@pytest.mark.attack("DST-04")
def test_an_a_label_is_taken_byte_for_byte() -> None:
    assert read_destination("https://xn--pi-7ba.example.com").host == "xn--pi-7ba.example.com"


@pytest.mark.attack("DST-06")
@pytest.mark.parametrize(
    "flaw",
    [
        "self-signed",
        "expired",
        "wrong-name",
        "revoked",
        "nul-in-name",
        pytest.param("plain-text", marks=pytest.mark.slow),
    ],
)
def test_an_upstream_that_does_not_verify_gets_no_credential(flaw: str, tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        servers = {
            "self-signed": lambda: ca.server(flaw, signed=False),
            "expired": lambda: ca.server(flaw, days=-1),
            "wrong-name": lambda: ca.server(flaw, host="other.test"),
            "revoked": lambda: ca.server(flaw),
            "nul-in-name": lambda: ca.server(flaw, host="localhost\0.evil.test"),
        }
        trust = partial(ca.trust, revoked="revoked" if flaw == "revoked" else None)
        server = servers[flaw]() if flaw in servers else None
        upstream = Upstream(tls=server)
        async with upstream as up, rig(tls=trust, destination=f"https://localhost:{up.port}") as r:
            for _ in range(2):
                reply = await r.get("/api/x")
                assert (reply.status, reply.json()["code"]) == (502, "upstream")
                assert b"localhost" not in reply.body
            assert up.heard(SECRET) == 0
            assert up.seen == []

    play(scene)


@pytest.mark.attack("DST-06")
def test_an_upstream_that_verifies_is_used_and_its_connection_kept(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        async with rig(tls=ca.trust, upstream=Upstream(tls=ca.server("good"))) as r:
            for _ in range(2):
                assert (await r.get("/api/x")).status == 200
            assert (r.upstream.connections, r.upstream.heard(SECRET)) == (1, 2)

    play(scene)


@pytest.mark.attack("DST-07")
def test_a_resource_name_binds_exactly_one_destination() -> None:
    async def scene() -> None:
        names = {"example.com": OTHER_SECRET + "0", "api.example.com": OTHER_SECRET + "1"}
        async with Upstream() as wide, Upstream() as narrow, rig() as r:
            for (name, secret), up in zip(names.items(), (wide, narrow), strict=True):
                bound = details({**ALL, "resource": name})
                await r.broker.put_resource(OPERATOR, Resource(name, "http", up.url, bound, None, {}), Secret(secret))
            both = await r.opened(*({**ALL, "resource": name} for name in names))
            port = await r.listen(Channel(both.id, {}))
            table = {
                "api.example.com": 200,
                "example.com": 200,
                "API.example.com": 400,
                "api.example.com.": 403,
                "x.api.example.com": 403,
                "api.example.com.evil": 403,
            }
            assert {name: (await r.get(f"/{name}/x", port=port)).status for name in table} == table
            assert [s.headers["authorization"] for s in wide.seen] == [f"Bearer {names['example.com']}"]
            assert [s.headers["authorization"] for s in narrow.seen] == [f"Bearer {names['api.example.com']}"]

    play(scene)


@pytest.mark.attack("DST-08")
def test_a_secret_does_not_follow_its_resource_to_another_destination() -> None:
    async def scene() -> None:
        async with Sink() as evil, rig(http(paths=["/**"])) as r:
            moved = replace(r.broker._registry.resource("api"), destination=f"http://127.0.0.1:{evil.port}")
            with pytest.raises(InvalidRequestError):
                await r.broker.put_resource(OPERATOR, moved)
            assert (await r.get("/api/x")).status == 200
            assert evil.connections == 0

    play(scene)


@pytest.mark.attack("DST-09")
@pytest.mark.parametrize(
    ("provider", "base", "paths", "minting"),
    [
        ("openai", "", ["/**"], "/v1/organization/admin_api_keys"),
        ("openai", "/v1", ["/**"], "/organization/admin_api_keys"),
        ("github", "", ["/user/**"], "/user/keys"),
        ("github", "/api/v3", ["/user/**"], "/user/keys"),
        ("gemini", "", ["/v1beta/**"], "/v1beta/auth_tokens"),
        ("openai", "", ["/**"], "/v1/batches"),
        ("openai", "/v1", ["/**"], "/batches"),
        ("anthropic", "", ["/v1/**"], "/v1/messages/batches"),
        ("generic", "", ["/v1/**"], "/v1/$batch"),
        ("generic", "", ["/logs/**"], "/logs/_bulk"),
    ],
)
def test_no_spelling_of_an_operation_that_mints_or_carries_reaches_the_provider_by_a_wildcard(
    provider: str, base: str, paths: list[str], minting: str
) -> None:
    async def scene() -> None:
        async with rig(
            http(actions=["POST"], paths=paths, args="any"), settings={"provider": provider}, base=base
        ) as r:
            head, _, last = minting.rpartition("/")
            for path in (
                minting,
                f"{minting}/",
                f"{minting}//",
                f"{minting};x=1",
                f"{minting};",
                f"{head};x/{last}",
                f"{head}//{last}",
                f"{head}/./{last}",
                f"{head}/x/../{last}",
                f"{head}/%{ord(last[0]):02X}{last[1:]}",
                f"{head}/{last.upper()}",
                f"{minting}%20",
                f"{minting}.",
                f"{minting}%3Bx",
                f"{head}/{last[:-1]}{quote(chr(ord(last[-1]) + 0xFEE0))}",  # a wide letter
            ):
                assert (await r.get(f"/api{path}", method="POST")).status in {400, 403}, path
            assert r.upstream.seen == []
            assert (await r.get(f"/api{paths[0].removesuffix('/**')}/else", method="POST")).status == 200

    play(scene)


@pytest.mark.attack("DST-10")
def test_requests_inside_of_a_request_and_segments_with_parameters_need_more_than_a_wildcard() -> None:
    async def scene() -> None:
        granted = http(actions=["POST", "GET"], paths=["/v1/**", "/v2/batch"], args="any")
        async with rig(granted) as r:
            for path in ("/v1/batch", "/v1/$batch", "/v1/batch/", "/v1/%24batch", "/v1/a/b/$batch", "/v1/BATCH"):
                assert (await r.get(f"/api{path}", method="POST", body=b"{}")).status == 403, path
            for path in ("/v1/items/7;jsessionid=1", "/v1/batch;x", "/v1;a/items", "/v1/items;", "/v1/items/;/x"):
                assert (await r.get(f"/api{path}")).status == 400, path
            assert r.upstream.seen == []
            for path in ("/v2/batch", "/v1/batches", "/v1/models/gemini:generateContent"):
                assert (await r.get(f"/api{path}", method="POST", body=b"{}")).status == 200, path

    play(scene)


class Resolver:
    """Answers for any name, in order, and again with the last; keeps what it was asked."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


PRIVATE = [
    ["127.0.0.1"],
    ["::1"],
    ["10.1.2.3"],
    ["169.254.169.254"],
    ["100.100.100.200"],
    ["192.0.0.192"],
    ["fd00:ec2::254"],
    ["fe80::1%lo"],
    ["::ffff:169.254.169.254"],
    ["64:ff9b::a9fe:a9fe"],
    ["0.0.0.0"],  # noqa: S104 - an address that is refused
    ["93.184.216.34", "127.0.0.1"],
    ["127.0.0.1", "93.184.216.34"],
    ["2606:4700::6810:84e5", "fd00::1"],
]


@pytest.mark.attack("DST-05")
@pytest.mark.parametrize("answer", PRIVATE, ids=" ".join)
def test_a_name_with_any_private_answer_is_not_connected_to(answer: list[str]) -> None:
    async def scene() -> None:
        resolver = Resolver(answer)
        async with Sink() as sink, rig(destination=f"https://api.test:{sink.port}", lookup=resolver) as r:
            reply = await r.get("/api/x")
            assert (reply.status, reply.json()["code"]) == (502, "upstream")
            assert "--setting private=true" in str(reply.json()["help"])
            assert answer[0].encode() not in reply.body
            assert (sink.connections, resolver.asked) == (0, [("api.test", sink.port)])

    play(scene)


@pytest.mark.attack("DST-05")
def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        resolver = Resolver(["127.0.0.3", "127.0.0.1"], ["192.0.2.1"])  # nobody listens at the first; then it moves
        async with Upstream(tls=ca.server("x", host="api.test")) as up:
            there = f"https://api.test:{up.port}"
            async with rig(tls=ca.trust, destination=there, lookup=resolver, settings={"private": True}) as r:
                for _ in range(3):
                    assert (await r.get("/api/x")).status == 200
                assert (len(resolver.asked), up.connections) == (1, 1)

    play(scene)


@pytest.mark.attack("DST-05")
@pytest.mark.parametrize(
    ("host", "private"),
    [("127.0.0.1", True), ("localhost", True), ("10.0.0.7", True), ("[fd00::1]", True), ("api.test", False)],
)
def test_who_writes_an_address_means_it(host: str, *, private: bool) -> None:
    def compiled(**settings: object) -> HttpTarget:
        return HttpTarget(Resource("api", "http", f"https://{host}", details(ALL), None, settings), None)

    assert compiled().private == private
    assert compiled(private=True).private
    assert not compiled(private=False).private
    with pytest.raises(InvalidRequestError):
        compiled(private="yes")
