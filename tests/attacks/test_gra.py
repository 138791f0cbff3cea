"""Grant language and path confusion."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping

import pytest

from remit.core import scope
from remit.core.principal import Holder
from remit.core.scope import Access
from remit.errors import InvalidRequestError
from remit.gateway.authorize import compile_rules
from remit.gateway.fronts.path import read_target
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.core.oracle import permits
from tests.fuzz.readers import outside
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, Rig, http, permitting, play, rig

REFUSED = {400, 403, 404, 405, 413, 421}


async def refused(r: Rig, *targets: str, method: str = "GET") -> None:
    """Assert that raw targets are refused, that nothing reached the upstream, and that each refusal is on record."""
    before = len(r.upstream.seen)
    for target in targets:
        reply = await r.get(target, method=method)
        assert reply.status in REFUSED, (target, reply.status)
    assert len(r.upstream.seen) == before
    await r.settled(lambda: not r.gateway.plane.tasks)
    denied = [event for event in await r.events("resource.use") if event.decision == "deny"]
    assert len(denied) >= min(len(targets), 20)


@pytest.mark.attack("GRA-01")
def test_dot_segments_in_every_spelling_are_refused() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            base = "/api/v1/public"
            await refused(
                r,
                f"{base}/../admin",
                f"{base}/%2e%2e/admin",
                f"{base}/.%2e/admin",
                f"{base}/%2E%2E%2fadmin",
                f"{base}/./../admin",
                f"{base}/./a",
                f"{base}/..",
                f"{base}/a/..",
                f"{base}/..;/admin",
                f"{base}/..;a=b/admin",
                f"{base}/..%00/admin",
                f"{base}/..%20/admin",
                f"{base}/.../admin",
            )
            assert (await r.get(f"{base}/a..b/.well-known")).status == 200

    play(scene)


@pytest.mark.attack("GRA-02")
def test_encoded_separators_are_refused() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            marks = ["%2f", "%2F", "%5c", "%5C", "\\", "%u2215", "%EF%BC%8F", "%E2%88%95", "\uff0f", "\u2215", "%C0%AF"]
            await refused(r, *(f"/api/v1/public/..{mark}admin" for mark in marks))
            await refused(r, *(f"/api/v1/public/a{mark}b" for mark in marks))

    play(scene)


@pytest.mark.attack("GRA-03")
def test_letters_that_need_no_escape_are_refused_when_escaped() -> None:
    async def scene() -> None:
        async with rig(http(paths=["/v1/public/**", "/v1/*/list"])) as r:
            await refused(
                r,
                "/api/v1/%61dmin",
                "/api/v1/adm%69n",
                "/api/%76%31/admin",
                "/api/v1/%61dmin/list",
                "/api/v1/public/%61",
            )

    play(scene)


@pytest.mark.attack("GRA-04")
def test_only_the_exact_path_is_accepted_whatever_its_slashes() -> None:
    async def scene() -> None:
        async with rig(http(paths=["/v1/items/7"])) as r:
            await refused(
                r,
                "//api/v1/items/7",
                "/api//v1/items/7",
                "/api/v1//items/7",
                "/api/v1/items/7/",
                "/api/v1/items/7//",
                "/api/v1/items//7",
                "/api/V1/items/7",
            )
            assert (await r.get("/api/v1/items/7")).status == 200

    play(scene)


TABLE = [
    ("/a", "/a", True),
    ("/a", "/a/", False),
    ("/a", "/", False),
    ("/a", "/b", False),
    ("/a", "/a/b", False),
    ("/a", "/A", False),
    ("/a", "/ab", False),
    ("/a/", "/a/", True),
    ("/a/", "/a", False),
    ("/a/b", "/a/b", True),
    ("/a/b", "/a/c", False),
    ("/a/b", "/a", False),
    ("/a/b", "/b", False),
    ("/a/b", "/x/a/b", False),
    ("/a/b", "/a/b/c", False),
    ("/", "/", True),
    ("/", "/a", False),
    ("/*", "/a", True),
    ("/*", "/", False),
    ("/*", "/a/", False),
    ("/*", "/a/b", False),
    ("/*", "/.a", True),
    ("/*", "/~", True),
    ("/*", "/%20", True),
    ("/a/*", "/a/b", True),
    ("/a/*", "/a/", False),
    ("/a/*", "/a", False),
    ("/a/*", "/a/b/", False),
    ("/a/*", "/a/b/c", False),
    ("/a/*", "/b/b", False),
    ("/a/*/c", "/a/b/c", True),
    ("/a/*/c", "/a//c", False),
    ("/a/*/c", "/a/b/b/c", False),
    ("/a/*/c", "/a/c", False),
    ("/a/*/c", "/a/b/d", False),
    ("/a/*/", "/a/b/", True),
    ("/a/*/", "/a/b", False),
    ("/*/*", "/a/b", True),
    ("/*/*", "/a", False),
    ("/*/*", "/a/b/c", False),
    ("/**", "/", True),
    ("/**", "/a", True),
    ("/**", "/a/b/c/", True),
    ("/a/**", "/a", True),
    ("/a/**", "/a/", True),
    ("/a/**", "/a/b", True),
    ("/a/**", "/a/b/c/d", True),
    ("/a/**", "/ab", False),
    ("/a/**", "/ab/c", False),
    ("/a/**", "/", False),
    ("/a/**", "/b/a/b", False),
    ("/a/*/**", "/a/b", True),
    ("/a/*/**", "/a/b/c", True),
    ("/a/*/**", "/a/", False),
    ("/a/*/**", "/a", False),
    ("/a.b", "/a.b", True),
    ("/a.b", "/axb", False),
    ("/a+b", "/aab", False),
    ("/(a)", "/(a)", True),
    ("/(a)", "/a", False),
    ("/$", "/$", True),
    ("/a%2Bb", "/a%2Bb", True),
    ("/a%2Bb", "/a+b", False),
]


@pytest.mark.attack("GRA-05")
@pytest.mark.parametrize(("pattern", "path", "expected"), TABLE)
def test_the_table_of_segment_wildcards_holds(pattern: str, path: str, *, expected: bool) -> None:
    grant = scope.parse([http(paths=[pattern])])
    access = Access("api", "GET", path)
    assert permits(grant[0], access) is expected
    assert (permitting(compile_rules(grant, "api"), access) is not None) is expected


@pytest.mark.attack("GRA-05")
def test_random_paths_match_as_an_independent_expression_does() -> None:
    chance = random.Random(5)  # noqa: S311 - a reproducible sample
    words = ["a", "b", "ab", ".a", "a.b"]
    matched = 0
    for _ in range(300):
        pattern = (
            "/" + "/".join(chance.choices([*words, "*"], k=chance.randrange(1, 4))) + chance.choice(["", "/**", "/"])
        )
        rest = pattern.endswith("/**")
        expression = re.escape(pattern.removesuffix("/**")).replace(r"\*", "[^/]+") + ("(/.*)?" if rest else "")
        rules = compile_rules(scope.parse([http(paths=[pattern])]), "api")
        for _ in range(300):
            path = "/" + "/".join(chance.choices(words, k=chance.randrange(1, 5))) + chance.choice(["", "/"])
            permitted = permitting(rules, Access("api", "GET", path)) is not None
            matched += permitted
            assert permitted is bool(re.fullmatch(expression, path)), (pattern, path)
    assert matched > 2_000


@pytest.mark.attack("GRA-06")
def test_only_the_named_argument_passes_and_what_passes_is_what_was_judged() -> None:
    async def scene() -> None:
        async with rig(http(args={"query.q": "any"}, actions=["GET", "POST"])) as r:
            path = "/api/v1/public/s"
            await refused(
                r,
                f"{path}?q=a&limit=1",
                f"{path}?q=a&q=b",
                f"{path}?r[]=a",
                f"{path}?q[]=a&q[]=b",
                f"{path}?q=a;limit=1",
                f"{path}?=a",
                f"{path}?q=a&=b",
                f"{path}?q",
                f"{path}?q=%00",
                f"{path}?q=%FF",
                f"{path}?q=%",
                f"{path}?q=a&",
                f"{path}?Q=a",
            )
            body = await r.get(f"{path}?q=a", "Content-Type: application/json", method="POST", body=b'{"q": "b"}')
            assert body.status == 403
            forwarded = {
                "q=a%26limit%3D1": "q=a%26limit%3D1",
                "%71=a": "q=a",
                "q=a+b": "q=a%20b",
                "q=": "q=",
                "q[]=a": "q[]=a",
            }
            for sent, judged in forwarded.items():
                assert (await r.get(f"{path}?{sent}")).json()["target"] == f"/v1/public/s?{judged}"

    play(scene)


@pytest.mark.attack("GRA-06")
def test_a_bound_argument_has_no_second_spelling() -> None:
    async def scene() -> None:
        async with rig(http(args={"query.q": {"exact": "a"}})) as r:
            path = "/api/v1/public/s"
            await refused(
                r, *(f"{path}?{query}" for query in ("q[]=a", "q=b", "q.x=a", "q=a&q[]=b", "q=a&q.x=b", "q=A"))
            )
            assert (await r.get(f"{path}?%71=%61")).json()["target"] == "/v1/public/s?q=a"

    play(scene)


@pytest.mark.attack("GRA-07")
def test_only_listed_methods_pass() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            methods = [
                "HEAD",
                "OPTIONS",
                "TRACE",
                "CONNECT",
                "PATCH",
                "QUERY",
                "get",
                "GET ",
                "GET\t",
                "G" * 4096,
                "PRI",
            ]
            for method in methods:
                await refused(r, "/api/v1/public/a", method=method)
            overrides = ["X-HTTP-Method-Override: DELETE", "X-HTTP-Method: DELETE", "X-Method-Override: DELETE"]
            assert (await r.get("/api/v1/public/a", *overrides)).status == 200
            assert not [name for name in r.upstream.seen[0].headers if "method" in name]
            assert r.upstream.seen[0].method == "GET"

    play(scene)


@pytest.mark.attack("GRA-08")
def test_no_target_names_a_destination() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            await refused(
                r,
                "http://other.test/v1/public/x",
                "http://127.0.0.1/api/v1/public/x",
                "//other.test/x",
                "*",
                "other.test:443",
                "/api/" + "x" * 65_536,
                "/api/v1/public/a b",
                "/api/v1/public/a#b",
                "api/v1/public/a",
                "",
            )
            await refused(r, "host:443", method="CONNECT")

    play(scene)


PIECES = [
    "/",
    "/v1",
    "/public",
    "/admin",
    "a",
    ".",
    "..",
    "...",
    "%2e",
    "%2E",
    "%2f",
    "%2F",
    "%5c",
    "%5C",
    "\\",
    ";",
    ";a=b",
    "%3B",
    "%00",
    "%09",
    "%0A",
    "%20",
    "%25",
    "%252e",
    "%252f",
    "%C0%AE",
    "%C0%AF",
    "%E2%88%95",
    "%EF%BC%8F",
    "%EF%BC%8E",
    "%E2%80%A5",
    "%E2%80%A6",
    "%E2%80%8B",
    "%C2%A5",
    "//",
    "%61",
    "%7E",
    "~",
    "%2A",
    "*",
    ":",
    "@",
    "&",
    "=",
    "+",
    ",",
    "!",
    "%c3%a9",
    "%C3%A9",
    "PUBLIC",
]


@pytest.mark.attack("GRA-09")
def test_no_accepted_target_means_something_else_to_any_reader() -> None:
    chance = random.Random(9)  # noqa: S311 - a reproducible sample
    accepted = 0
    rules = compile_rules(scope.parse([http()]), "api")
    for _ in range(60_000):
        path = "/v1/public/" + "".join(chance.choices(PIECES, k=chance.randrange(1, 7)))
        try:
            target = read_target(b"/api" + path.encode())
        except InvalidRequestError:
            continue
        if permitting(rules, Access("api", "GET", target.path)) is None:
            continue
        accepted += 1
        assert target.path == path
        assert outside(path, ("v1", "public")) == [], path
    assert accepted > 2_000


@pytest.mark.attack("GRA-10")
def test_a_grant_that_the_url_names_is_held_to_its_own_scope_and_to_the_subtree_of_the_caller() -> None:
    async def scene() -> None:
        async with rig() as r:
            child, ended = await r.child(http(args="any")), await r.child(ALL)
            stranger = await r.opened(ALL)
            theirs = await r.child(ALL, jkt="R" * 43)
            await r.broker.revoke(OPERATOR, ended.id)
            inside = await r.listen(Channel(child.id, {}))  # of a run that works under the child
            await refused(
                r,
                f"/@{child.id}/api/v1/admin",
                f"/@{ended.id}/api/v1/public/a",
                f"/@{stranger.id}/api/v1/public/a",
                f"/@{theirs.id}/api/v1/public/a",
                "/@grt_unknown/api/v1/public/a",
            )
            for name in (r.grant.id, ended.id, stranger.id):  # above it, beside it, elsewhere
                assert (await r.get(f"/@{name}/api/v1/public/a", port=inside)).status == 404
            assert r.upstream.seen == []
            assert (await r.get(f"/@{child.id}/api/v1/public/a?q=1")).status == 200
            assert (await r.get(f"/@{r.grant.id}/api/v1/admin")).status == 200
            assert [seen.target for seen in r.upstream.seen] == ["/v1/public/a?q=1", "/v1/admin"]

    play(scene)


@pytest.mark.attack("GRA-10")
def test_a_url_and_a_header_that_name_different_grants_are_refused() -> None:
    async def scene() -> None:
        async with rig() as r:
            child, other = await r.child(http()), await r.child(ALL)
            for name in (other.id, r.grant.id, ""):
                reply = await r.get(f"/@{child.id}/api/v1/public/a", f"Remit-Grant: {name}")
                assert (reply.status, reply.json()["code"]) == (400, "invalid-request"), name
            assert r.upstream.seen == []
            assert (await r.get(f"/@{child.id}/api/v1/public/a", f"Remit-Grant: {child.id}")).status == 200

    play(scene)


@pytest.mark.attack("GRA-10")
def test_the_url_names_a_grant_in_one_form_alone() -> None:
    async def scene() -> None:
        async with rig() as r:
            name = (await r.child(ALL)).id
            await refused(
                r,
                f"/%40{name}/api/v1/x",
                f"/@{name.replace('_', '%5F')}/api/v1/x",
                f"/@{name}//api/v1/x",
                f"/@{name}%2Fapi/v1/x",
                f"/@{name}/@{name}/api/v1/x",
                f"/@{name}/./api/v1/x",
                f"/@{name};a=b/api/v1/x",
                f"/@{name.upper()}/api/v1/x",
                f"/@{name}",
                "/@/api/v1/x",
                "/@api/v1/x",
            )
            assert (await r.get(f"/api/@{name}/x")).status == 200  # a path of the upstream's own
            assert r.upstream.seen[0].target == f"/@{name}/x"

    play(scene)


@pytest.mark.attack("GRA-10")
def test_the_holder_of_a_token_names_a_grant_in_the_url_that_it_proves() -> None:
    held: list[str] = []
    proven: list[str] = []

    async def verify(_headers: Mapping[str, str], _method: str, url: str, _resource: str) -> Holder:
        proven.append(url)
        return Holder("task", held[0])

    async def scene() -> None:
        async with rig(verify=verify) as r:
            held.append(r.grant.id)
            child, stranger = await r.child(http()), await r.opened(ALL)
            await refused(r, f"/@{child.id}/api/v1/admin", f"/@{stranger.id}/api/v1/public/a")
            assert (await r.get(f"/@{child.id}/api/v1/public/a")).status == 200
            assert proven[-1] == f"http://127.0.0.1:{r.port}/@{child.id}/api/v1/public/a"

    play(scene)


@pytest.mark.attack("GRA-10")
def test_each_request_of_a_connection_is_judged_under_the_grant_that_its_own_url_names() -> None:
    async def scene() -> None:
        async with rig() as r:
            narrow, other = await r.child(http()), await r.child(ALL)
            wire = await r.wire()
            targets = [f"/@{name}/api/v1/{path}" for path in ("public/a", "admin") for name in (narrow.id, other.id)]
            for _ in range(2):  # the second time as it was judged before
                await wire.send(b"".join(map(r.request, targets)))
                assert [(await wire.reply()).status for _ in targets] == [200, 200, 403, 200]
            await r.broker.revoke(OPERATOR, other.id)
            await wire.send(b"".join(map(r.request, targets)))
            assert [(await wire.reply()).status for _ in targets] == [200, 403, 403, 403]
            outcomes = await r.outcomes(7)
            assert Counter(event.grant for event in outcomes) == {narrow.id: 3, other.id: 4}  # alike ones are one entry

    play(scene)


@pytest.mark.attack("GRA-10")
def test_a_placeholder_is_swapped_at_the_url_of_a_grant_and_belongs_nowhere_in_it() -> None:
    async def scene() -> None:
        async with rig() as r:
            child = await r.child(http())
            await refused(r, f"/@{child.id}/api/v1/public/{PLACEHOLDER}", f"/@grt_{PLACEHOLDER}/api/v1/public/a")
            line = f"Authorization: Bearer {PLACEHOLDER}"
            assert (await r.get(f"/@{child.id}/api/v1/public/a", line)).status == 200
            assert r.upstream.seen[0].headers["authorization"] == f"Bearer {SECRET}"

    play(scene)
