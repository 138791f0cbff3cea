"""Where a key stands: a header, Basic, the query, a field of JSON; a placeholder in a form, too. Nowhere else."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from collections.abc import Mapping

import pytest

from remit.core import audit
from remit.errors import InvalidRequestError
from remit.gateway.server import Channel
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, Rig, http, play, rig
from tests.support.upstream import Upstream

QUERY: Mapping[str, object] = {"inject": {"query": "api_key"}}
BASIC: Mapping[str, object] = {"inject": {"basic": "{user}:{}"}, "user": "me@acme.test"}
TAVILY: Mapping[str, object] = {"provider": "tavily"}
JSON = "Content-Type: application/json"
ODD = "rmt-real/3f1c+0a9be7d24856=b0d1c2e3f4a59687"  # a key that a query escapes


def basic(text: str) -> str:
    return f"Authorization: Basic {b64encode(text.encode()).decode()}"


def nothing_came(r: Rig) -> bool:
    return r.upstream.seen == [] and r.upstream.heard(SECRET) == 0


@pytest.mark.parametrize(
    ("asked", "came"),
    [
        (f"?api_key={PLACEHOLDER}", f"?api_key={SECRET}"),
        (f"?a=1&api_key={PLACEHOLDER}&b=2", f"?a=1&b=2&api_key={SECRET}"),
        (f"?a=1&api_key={PLACEHOLDER}", f"?a=1&api_key={SECRET}"),
        ("", f"?api_key={SECRET}"),
        ("?a=1", f"?a=1&api_key={SECRET}"),
    ],
)
def test_a_placeholder_in_the_query_becomes_the_key_at_its_end(asked: str, came: str) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=QUERY) as r:
            for _ in range(2):  # the second is one that is known
                assert (await r.get(f"/api/bytes/3{asked}")).status == 200
            assert [seen.target for seen in r.upstream.seen] == [f"/bytes/3{came}"] * 2
            assert "authorization" not in r.upstream.seen[0].headers

    play(scene)


def test_arguments_of_a_grant_need_not_name_the_credentials_parameter_and_cannot_be_met_by_it() -> None:
    named = http(paths=["/bytes/3"], args={"query.q": "any"})

    async def scene() -> None:
        async with rig(named, settings=QUERY) as r:
            assert (await r.get(f"/api/bytes/3?api_key={PLACEHOLDER}&q=cats")).status == 200
            assert r.upstream.seen[0].target == f"/bytes/3?q=cats&api_key={SECRET}"
            refused = (await r.get(f"/api/bytes/3?api_key={PLACEHOLDER}&q=cats&more=1")).json()
            assert refused["code"] == "scope"
            assert "api_key" not in json.dumps(refused["enough"])

    play(scene)


OTHER_KEYS = [
    "api_key=mine",
    "API_KEY=mine",
    "api%5Fkey=mine",
    "api%255Fkey=mine",
    "api_key[]=mine",
    "api_key[0]=mine",
    "api.key=mine",
    "api+key=mine",
    "%EF%BD%81pi_key=mine",
    "api_key",
    f"api_key=x{PLACEHOLDER}",
    f"api_key={PLACEHOLDER}",
]


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("also", OTHER_KEYS)
@pytest.mark.parametrize("order", [0, 1])
def test_a_second_parameter_of_the_credentials_name_in_any_spelling_is_refused(also: str, order: int) -> None:
    pairs = [f"api_key={PLACEHOLDER}", also]

    async def scene() -> None:
        async with rig(ALL, settings=QUERY) as r:
            reply = await r.get(f"/api/bytes/3?{'&'.join(pairs[::-1] if order else pairs)}")
            assert reply.status in {400, 403}
            assert nothing_came(r)
            assert PLACEHOLDER.encode() not in reply.body

    play(scene)


@pytest.mark.parametrize("channel", [True, False])
def test_a_key_of_the_clients_own_does_not_stand_beside_the_real_one(*, channel: bool) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=QUERY) as r:
            port = r.port if channel else await r.listen(Channel(r.grant.id, {}))
            reply = await r.get("/api/bytes/3?api_key=mine", port=port)
            assert (reply.status, reply.json()["code"]) == (400, "invalid-request")
            assert nothing_came(r)

    play(scene)


MISPLACED = [
    ("GET", f"/api/x?other={PLACEHOLDER}", (), b""),
    ("GET", f"/api/x?Api_Key={PLACEHOLDER}", (), b""),
    ("GET", f"/api/x?api%5Fkey={PLACEHOLDER}", (), b""),
    ("GET", f"/api/x?api_key=%73{PLACEHOLDER[1:]}", (), b""),
    ("GET", f"/api/x/{PLACEHOLDER}", (), b""),
    ("GET", "/api/x", (f"Authorization: Bearer {PLACEHOLDER}",), b""),
    ("GET", "/api/x", (basic(f"{PLACEHOLDER}:"),), b""),
    ("POST", "/api/x", (JSON,), json.dumps({"api_key": PLACEHOLDER}).encode()),
]


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize(("method", "target", "lines", "body"), MISPLACED)
def test_where_the_query_is_the_place_a_placeholder_is_refused_elsewhere(
    method: str, target: str, lines: tuple[str, ...], body: bytes
) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=QUERY) as r:
            reply = await r.get(target, *lines, method=method, body=body)
            assert reply.status in {400, 403}
            assert nothing_came(r)
            if reply.status == 403:
                assert "`?api_key=…`" in str(reply.json()["help"])

    play(scene)


def test_a_key_in_a_query_is_escaped_and_withheld_in_each_spelling() -> None:
    async def scene() -> None:
        async with rig(ALL, settings=QUERY, secret=ODD) as r:
            assert (await r.get(f"/api/x?api_key={PLACEHOLDER}")).status == 502  # the answer says what was asked for
            assert r.upstream.seen[0].target == "/x?api_key=rmt-real%2F3f1c%2B0a9be7d24856%3Db0d1c2e3f4a59687"
            assert [event.code for event in await r.outcomes(1)] == ["upstream"]

    play(scene)


def test_a_placeholder_in_basic_becomes_the_key_of_the_configured_user() -> None:
    async def scene() -> None:
        async with rig(ALL, settings=BASIC) as r:
            assert (await r.get("/api/bytes/3", basic(f"me@acme.test:{PLACEHOLDER}"))).status == 200
            assert (await r.get("/api/bytes/3")).status == 200
            expected = basic(f"me@acme.test:{SECRET}").partition(": ")[2]
            assert [seen.headers["authorization"] for seen in r.upstream.seen] == [expected] * 2

    play(scene)


WRONG_BASIC = [
    (basic(f"other@acme.test:{PLACEHOLDER}"),),
    (basic(f"{PLACEHOLDER}:{PLACEHOLDER}"),),
    (basic(f"{PLACEHOLDER}:me@acme.test"),),
    (basic(f"me@acme.test:{PLACEHOLDER}{PLACEHOLDER}"),),
    (basic(f"me@acme.test:{PLACEHOLDER}:x"),),
    (basic(f"me@acme.test: {PLACEHOLDER}"),),
    (basic(f"me@acme.test:{PLACEHOLDER}"), basic(f"me@acme.test:{PLACEHOLDER}")),
    (basic(f"me@acme.test:{PLACEHOLDER}"), f"X-Api-Key: {PLACEHOLDER}"),
    (basic(f"me@acme.test:{PLACEHOLDER}").replace("Authorization", "X-Authorization"),),
    (f"Authorization: Basic me@acme.test:{PLACEHOLDER}",),
    (f"Authorization: Bearer {PLACEHOLDER}",),
    (f"Authorization: Basic {b64encode(basic(f'me@acme.test:{PLACEHOLDER}').encode()).decode()}",),
]


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("lines", WRONG_BASIC)
def test_a_placeholder_in_another_basic_is_refused(lines: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=BASIC) as r:
            reply = await r.get("/api/bytes/3", *lines)
            assert reply.status in {400, 403}
            assert nothing_came(r)

    play(scene)


def test_what_a_refusal_says_of_basic_has_the_users_name_and_no_placeholder() -> None:
    async def scene() -> None:
        async with rig(ALL, settings=BASIC) as r:
            reply = await r.get("/api/bytes/3", basic(f"other:{PLACEHOLDER}"))
            assert "`Authorization: Basic base64(me@acme.test:…)`" in str(reply.json()["help"])
            assert PLACEHOLDER.encode() not in reply.body

    play(scene)


def test_an_answer_that_repeats_basic_is_withheld() -> None:
    whole = b64encode(f"me@acme.test:{SECRET}".encode()).decode()

    async def scene() -> None:
        route = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(whole), whole.encode())
        async with rig(ALL, settings=BASIC, upstream=Upstream(routes={"/bare": route})) as r:
            assert (await r.get("/api/headers")).status == 502
            assert (await r.get("/api/bare")).status == 502
            assert r.upstream.seen[0].headers["authorization"] == f"Basic {whole}"

    play(scene)


@pytest.mark.parametrize("args", ["any", {"body": "any"}, {"body.query": "any"}])
def test_a_placeholder_in_a_field_of_the_body_is_taken_out_of_it(args: object) -> None:
    grant = {**ALL, "args": args}

    async def scene() -> None:
        async with rig(grant, settings=TAVILY) as r:
            body = json.dumps({"api_key": PLACEHOLDER, "query": "caf\u00e9"}).encode()
            for _ in range(2):
                assert (await r.get("/api/bytes/3", JSON, method="POST", body=body)).status == 200
            for seen in r.upstream.seen:
                assert json.loads(seen.body) == {"query": "caf\u00e9"}
                assert seen.headers["authorization"] == f"Bearer {SECRET}"
                assert seen.headers["content-length"] == str(len(seen.body))
            assert len(r.upstream.seen) == 2

    play(scene)


@pytest.mark.parametrize("args", ["any", {"body": "any"}])
def test_a_body_without_a_placeholder_goes_on_byte_for_byte(args: object) -> None:
    async def scene() -> None:
        async with rig({**ALL, "args": args}, settings=TAVILY) as r:
            for body in (b'{ "key" : "mine","query":1.50}', b'["api_key"]', b'{"a":{"api_key":"x"}}'):
                assert (await r.get("/api/bytes/3", JSON, method="POST", body=body)).status == 200
                assert r.upstream.seen[-1].body == body
            text = b'{"api_key":1'
            assert (await r.get("/api/bytes/3", "Content-Type: text/plain", method="POST", body=text)).status == 200
            assert r.upstream.seen[-1].body == text

    play(scene)


@pytest.mark.parametrize(
    ("name", "asked", "came"),
    [
        ("api_key", {"api_key": PLACEHOLDER, "q": "caf\u00e9"}, {"api_key": SECRET, "q": "caf\u00e9"}),
        ("api_key", {"q": [{"api_key": "x"}], "api_key": PLACEHOLDER}, {"q": [{"api_key": "x"}], "api_key": SECRET}),
        ("api_key", {"q": 1}, {"api_key": SECRET, "q": 1}),
        ("api_key", {}, {"api_key": SECRET}),
        ("a.key", {"a": {"b": 1, "key": PLACEHOLDER}, "q": 1}, {"a": {"key": SECRET, "b": 1}, "q": 1}),
        ("a.key", {"q": 1, "a": {}}, {"a": {"key": SECRET}, "q": 1}),
        ("a.a", {"q": 1}, {"a": {"a": SECRET}, "q": 1}),
    ],
)
@pytest.mark.parametrize("args", ["any", {"body": "any"}, {"body.q": "any", "body.q[0].api_key": "any"}])
def test_the_key_stands_in_its_field_of_a_body_and_nowhere_else(
    name: str, asked: Mapping[str, object], came: Mapping[str, object], args: object
) -> None:
    if isinstance(args, dict) and "body.q" in args:
        if any(one not in {"q", "api_key"} for one in asked) or not isinstance(asked.get("q", []), int | str):
            return  # arguments that no test's grant names
        args = {"body.q": "any"} if "q" in asked else "any"

    async def scene() -> None:
        async with rig({**ALL, "args": args}, settings={"inject": {"body": name}}) as r:
            for framing in ("length", "chunked"):
                body = json.dumps(asked).encode()
                if framing == "length":
                    reply = await r.get("/api/bytes/3", JSON, method="POST", body=body)
                else:
                    wire = await r.wire()
                    head = r.request("/api/bytes/3", JSON, "Transfer-Encoding: chunked", method="POST")
                    await wire.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
                    reply = await wire.reply()
                assert reply.status == 200
                seen = r.upstream.seen[-1]
                assert json.loads(seen.body) == came
                assert seen.headers["content-length"] == str(len(seen.body))
                assert {"authorization", "transfer-encoding"}.isdisjoint(seen.headers)

    play(scene)


OWN_KEYS = [
    {"api_key": "mine"},
    {"api_key": None},
    {"api_key": {}},
    {"Api_Key": "mine"},
    {"apiKey": "mine"},
    {"api-key": "mine"},
    {"api_key[]": "mine"},
    {"\uff41pi_key": "mine"},
    {"api_key": PLACEHOLDER, "API_KEY": "mine"},
]


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("body", OWN_KEYS)
@pytest.mark.parametrize("settings", [TAVILY, {"inject": {"body": "api_key"}}])
@pytest.mark.parametrize("args", ["any", {"body": "any"}, {"body.q": "any"}])
def test_a_key_of_the_clients_own_in_the_field_is_refused_by_any_spelling_of_its_name(
    body: Mapping[str, object], settings: Mapping[str, object], args: object
) -> None:
    async def scene() -> None:
        async with rig({**ALL, "args": args}, settings=settings) as r:
            reply = await r.get("/api/bytes/3", JSON, method="POST", body=json.dumps({**body, "q": 1}).encode())
            assert (reply.status, reply.json()["code"]) == (400, "invalid-request")
            assert "the body's `api_key` is where the credential goes" in str(reply.json()["detail"])
            assert nothing_came(r)

    play(scene)


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("body", [{"a": "mine"}, {"a": None}, {"a": ["key"]}, {"A": {"KEY": "mine"}}])
def test_what_is_no_object_on_the_way_to_the_field_is_refused(body: Mapping[str, object]) -> None:
    async def scene() -> None:
        async with rig(ALL, settings={"inject": {"body": "a.key"}}) as r:
            assert (await r.get("/api/bytes/3", JSON, method="POST", body=json.dumps(body).encode())).status == 400
            assert nothing_came(r)

    play(scene)


NO_FIELD = {
    "text": (("Content-Type: text/plain",), b'{"q":1}', 400, "goes into a field of a JSON body"),
    "no type": ((), b'{"q":1}', 400, "goes into a field of a JSON body"),
    "a form": (("Content-Type: application/x-www-form-urlencoded",), b"api_key=1", 400, "a field of a JSON body"),
    "a list": ((JSON,), b'[{"q":1}]', 400, "which is no object"),
    "a text": ((JSON,), b'"q"', 400, "which is no object"),
    "no JSON": ((JSON,), b'{"q":1', 400, "not JSON"),
    "a name twice": ((JSON,), b'{"q":1,"q":2}', 400, "not JSON"),
    "in a coding": ((JSON, "Content-Encoding: gzip"), b'{"q":1}', 415, ""),
    "large": ((JSON,), json.dumps({"q": "x" * 262_144}).encode(), 413, "262144 bytes"),
}


@pytest.mark.parametrize(("lines", "body", "status", "told"), NO_FIELD.values(), ids=NO_FIELD)
@pytest.mark.parametrize("args", ["any", {"body": "any"}])
def test_a_body_that_has_no_field_for_the_key_is_refused_in_clear_words(
    lines: tuple[str, ...], body: bytes, status: int, told: str, args: object
) -> None:
    async def scene() -> None:
        async with rig({**ALL, "args": args}, settings={"inject": {"body": "api_key"}}) as r:
            reply = await r.get("/api/bytes/3", *lines, method="POST", body=body)
            assert reply.status == status
            assert told in str(reply.json()["detail"])
            assert nothing_came(r)

    play(scene)


def test_a_request_without_a_body_does_not_go_without_its_key() -> None:
    async def scene() -> None:
        async with rig(ALL, settings={"inject": {"body": "api_key"}}) as r:
            for method in ("GET", "POST", "DELETE"):
                reply = await r.get("/api/bytes/3", method=method)
                assert (reply.status, "a field of a JSON body" in str(reply.json()["detail"])) == (400, True)
            assert nothing_came(r)

    play(scene)


def test_without_a_stored_key_nothing_goes_to_a_resource_that_takes_it_in_a_body() -> None:
    async def scene() -> None:
        async with rig(ALL, settings={"inject": {"body": "api_key"}}, secret=None) as r:
            reply = await r.get("/api/bytes/3", JSON, method="POST", body=b'{"q":1}')
            assert (reply.status, "no credential to put into a body" in str(reply.json()["detail"])) == (502, True)
            assert nothing_came(r)

    play(scene)


def test_an_answer_that_repeats_the_field_is_withheld_and_a_key_with_a_quote_stays_one_text() -> None:
    odd = 'rmt-real"3f1c\\0a9be7d24856b0d1c2e3f4a59687'

    said = json.dumps({"you": {"said": odd}}).encode()
    echo = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said)

    async def scene() -> None:
        inject = {"inject": {"body": "api_key"}}
        async with rig(ALL, settings=inject, secret=odd, upstream=Upstream(routes={"/said": echo})) as r:
            reply = await r.get("/api/bytes/3", JSON, method="POST", body=b'{"q":1}')
            assert (reply.status, json.loads(r.upstream.seen[0].body)) == (200, {"api_key": odd, "q": 1})
            assert (await r.get("/api/said", JSON, method="POST", body=b'{"q":1}')).status == 502

    play(scene)


def test_the_field_is_found_by_a_parser_however_it_is_spelled() -> None:
    async def scene() -> None:
        async with rig(ALL, settings={"inject": {"body": "api_key"}}) as r:
            for spelled in (rf'"api\u005fkey": "{PLACEHOLDER}"', rf'"api_key": "\u0073{PLACEHOLDER[1:]}"'):
                body = f'{{"q": "\\"api_key\\": ", {spelled}}}'.encode()
                assert (await r.get("/api/bytes/3", JSON, method="POST", body=body)).status == 200
                assert json.loads(r.upstream.seen[-1].body) == {"q": '"api_key": ', "api_key": SECRET}

    play(scene)


def test_a_large_body_has_its_key_put_in_beside_the_loop() -> None:
    async def scene() -> None:
        body = {"q": ["x, [y] "] * 900, "api_key": PLACEHOLDER}
        async with rig(ALL, settings={"inject": {"body": "api_key"}}) as r:
            assert (await r.get("/api/bytes/3", JSON, method="POST", body=json.dumps(body).encode())).status == 200
            assert json.loads(r.upstream.seen[0].body) == {**body, "api_key": SECRET}

    play(scene)


WRONG_BODIES = {
    "a name in another case": f'{{"Api_Key": "{PLACEHOLDER}"}}',
    "another field": f'{{"query": "{PLACEHOLDER}"}}',
    "a field inside": f'{{"a": {{"api_key": "{PLACEHOLDER}"}}}}',
    "a list": f'[{{"api_key": "{PLACEHOLDER}"}}]',
    "a longer text": f'{{"api_key": "Bearer {PLACEHOLDER}"}}',
    "a list in the field": f'{{"api_key": ["{PLACEHOLDER}"]}}',
    "the name twice": f'{{"api_key": "{PLACEHOLDER}", "api_key": "{PLACEHOLDER}"}}',
    "the name twice, another value": f'{{"api_key": "{PLACEHOLDER}", "api_key": "x"}}',
    "the name twice, escaped": f'{{"api_key": "{PLACEHOLDER}", "api\\u005fkey": "x"}}',
    "a second copy": f'{{"api_key": "{PLACEHOLDER}", "query": "{PLACEHOLDER}"}}',
    "a copy in the name": f'{{"api_key": "{PLACEHOLDER}", "{PLACEHOLDER}": 1}}',
    "not all JSON": f'{{"api_key": "{PLACEHOLDER}"}} x',
    "escaped, in another field": f'{{"key": "\\u0073{PLACEHOLDER[1:]}"}}',
    "another field of a long one": json.dumps({"key": PLACEHOLDER, "query": "x" * 9_000}),
}


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("text", WRONG_BODIES.values(), ids=WRONG_BODIES)
@pytest.mark.parametrize("args", ["any", {"body": "any"}, {"body.query": "any"}])
def test_a_placeholder_elsewhere_in_a_body_is_refused(text: str, args: object) -> None:
    async def scene() -> None:
        async with rig({**ALL, "args": args}, settings=TAVILY) as r:
            reply = await r.get("/api/bytes/3", JSON, method="POST", body=text.encode())
            assert (reply.status, reply.json()["code"]) in {(403, "placeholder"), (400, "invalid-request")}
            assert nothing_came(r)
            if reply.status == 403:
                assert '`"api_key": "…"`' in str(reply.json()["help"])

    play(scene)


@pytest.mark.parametrize(
    "lines", [("Content-Type: text/plain",), (), (JSON, "Content-Encoding: gzip"), (JSON, "Content-Encoding: br")]
)
def test_a_field_is_one_of_plain_json_alone(lines: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=TAVILY) as r:
            body = json.dumps({"api_key": PLACEHOLDER}).encode()
            refused = 415 if len(lines) > 1 else 403
            assert (await r.get("/api/bytes/3", *lines, method="POST", body=body)).status == refused
            assert r.upstream.heard(PLACEHOLDER) == 0

    play(scene)


SLACK: Mapping[str, object] = {"provider": "slack"}
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize("line", [FORM, FORM + "; charset=UTF-8"])
def test_a_placeholder_in_a_parameter_of_a_form_is_taken_out_of_it(line: str) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=SLACK) as r:
            for body in (f"token={PLACEHOLDER}&limit=1", f"limit=1&token={PLACEHOLDER}", f"token={PLACEHOLDER}"):
                assert (await r.get("/api/bytes/3", line, method="POST", body=body.encode())).status == 200
            assert [seen.body for seen in r.upstream.seen] == [b"limit=1", b"limit=1", b""]
            assert {seen.headers["authorization"] for seen in r.upstream.seen} == {f"Bearer {SECRET}"}

    play(scene)


@pytest.mark.parametrize("text", ["token=mine", "TOKEN=mine&limit=1", "limit=1&to%6ben=mine", "token"])
def test_a_key_of_the_clients_own_in_a_form_is_refused(text: str) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=SLACK) as r:
            assert (await r.get("/api/bytes/3", FORM, method="POST", body=text.encode())).status == 400
            assert nothing_came(r)
            assert (await r.get("/api/bytes/3", FORM, method="POST", body=b"limit=1")).status == 200
            assert r.upstream.seen[0].body == b"limit=1"

    play(scene)


WRONG_FORMS = [
    f"Token={PLACEHOLDER}",
    f"text={PLACEHOLDER}",
    f"token={PLACEHOLDER}&token={PLACEHOLDER}",
    f"token={PLACEHOLDER}&to%6ben=mine",
    f"token={PLACEHOLDER}&token[]=mine",
    f"token={PLACEHOLDER}&text={PLACEHOLDER}",
    f"token=x{PLACEHOLDER}",
    f"token=%73{PLACEHOLDER[1:]}",
]


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("text", WRONG_FORMS)
@pytest.mark.parametrize("lines", [(FORM,), (JSON,), ("Content-Type: text/plain",), (FORM, "Content-Encoding: gzip")])
def test_a_placeholder_elsewhere_in_a_form_is_refused(text: str, lines: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with rig(ALL, settings=SLACK) as r:
            reply = await r.get("/api/bytes/3", *lines, method="POST", body=text.encode())
            assert reply.status == 415 if len(lines) > 1 else reply.status in {400, 403}
            assert nothing_came(r)
            assert r.upstream.heard(PLACEHOLDER) == 0

    play(scene)


def test_a_provider_that_takes_its_key_in_a_query_too_gets_it_in_its_own_place() -> None:
    async def scene() -> None:
        async with rig(ALL, settings={"provider": "gemini"}) as r:
            assert (await r.get(f"/api/bytes/3?key={PLACEHOLDER}&alt=sse")).status == 200
            assert (r.upstream.seen[0].target, r.upstream.seen[0].headers["x-goog-api-key"]) == (
                "/bytes/3?alt=sse",
                SECRET,
            )

    play(scene)


@pytest.mark.parametrize("settings", [QUERY, BASIC])
def test_no_log_and_no_entry_of_the_audit_has_the_key_or_what_it_is_written_as(
    settings: Mapping[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scene() -> None:
        async with rig(ALL, settings=settings) as r:
            assert (await r.get("/api/bytes/3")).status == 200
            assert (await r.get("/api/echo/plain")).status in {200, 502}
            assert (await r.get("/api/drop")).status == 502
            assert (await r.get("/api/bytes/3?api_key=mine&x")).status in {200, 400}
            await r.outcomes(3)
            log = repr([audit.read(entry) for entry in await r.store.entries(0, 1_000)]) + caplog.text
            whole = b64encode(f"me@acme.test:{SECRET}".encode()).decode()
            assert (SECRET in log, whole in log, "api_key" in log) == (False, False, False)

    play(scene)


@pytest.mark.parametrize(
    "settings",
    [
        {"inject": {"query": "api key"}},
        {"inject": {"query": "a", "format": "{}"}},
        {"inject": {"query": "a", "header": "B"}},
        {"inject": {"body": "api key"}},
        {"inject": {"body": "a..b"}},
        {"inject": {"body": "api_key", "format": "Bearer {}"}},
        {"inject": {"form": "token"}},
        {"inject": {"basic": "no place:"}},
        {"inject": {"basic": "{}"}},
        {"inject": {"basic": "{}:{}"}},
        {"inject": {"basic": "a:b:{}"}},
        {"inject": {"basic": "{user}:{}"}},
        {"inject": {"basic": "{user}:{}"}, "user": "a:b"},
        {"inject": {"basic": "{user}:{}"}, "user": "{}"},
        {"inject": {"basic": "{user}:{}"}, "user": ""},
        {"inject": {}},
    ],
)
def test_a_position_that_makes_no_sense_is_refused(settings: Mapping[str, object]) -> None:
    async def scene() -> None:
        with pytest.raises(InvalidRequestError):
            async with rig(ALL, settings=settings):
                pass

    play(scene)
