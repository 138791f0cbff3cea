"""Which detail permits a request, and how it is written to the upstream."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from remit import catalog
from remit.core import scope
from remit.core.scope import Access
from remit.errors import CodingError, InvalidRequestError, ScopeError
from remit.gateway import framing
from remit.gateway.authorize import HttpRequest, Permit, authorize, compile_rules, enough
from remit.gateway.framing import BODILESS
from remit.gateway.fronts.path import read_target
from remit.gateway.target import HttpTarget
from remit.ports import Resource
from tests.core.oracle import permits
from tests.gateway.rig import ALL, http

JSON = "Content-Type: application/json"


def shape(provider: str | None = None, base: str = "", **settings: object) -> HttpTarget:
    """Compile a resource."""
    bound = scope.parse([ALL])
    resource = Resource("api", "http", f"https://api.test{base}", bound, None, settings)
    return HttpTarget(resource, catalog.load()[provider] if provider is not None else None)


def http_request(
    target: str, *lines: str, method: str = "GET", body: bytes | None = None, has_body: bool = False
) -> HttpRequest:
    """Read a request."""
    fields = framing.request_fields("\r\n".join(["Host: a", *lines]).encode())
    return HttpRequest(method, read_target(target.encode()), fields, has_body=has_body or body is not None, body=body)


def verdict(detail: Mapping[str, object], request: HttpRequest, how: HttpTarget | None = None) -> Permit | None:
    """Judge a request against one detail."""
    return authorize(compile_rules(scope.parse([dict(detail)]), "api"), how or shape(), request)


def test_the_request_line_is_written_from_what_was_judged() -> None:
    judged = verdict(http(args={"query.q": "any"}), http_request("/api/v1/public/a?q=%41+b"), shape(base="/base"))
    assert judged is not None
    assert judged.start == b"GET /base/v1/public/a?q=A%20b HTTP/1.1\r\n"


def test_a_free_query_goes_on_as_it_came() -> None:
    judged = verdict(http(args="any"), http_request("/api/v1/public/a?q=%41+b&&x"))
    assert judged is not None
    assert judged.start == b"GET /v1/public/a?q=%41+b&&x HTTP/1.1\r\n"


def test_without_arguments_query_and_body_must_be_empty() -> None:
    assert verdict(http(), http_request("/api/v1/public/a")) is not None
    for request in (
        http_request("/api/v1/public/a?q=1"),
        http_request("/api/v1/public/a", method="POST", has_body=True),
    ):
        with pytest.raises(ScopeError):
            verdict(http(actions=["GET", "POST"]), request)


def test_an_empty_query_is_no_query() -> None:
    judged = verdict(http(), http_request("/api/v1/public/a?"))
    assert judged is not None
    assert judged.start == b"GET /v1/public/a HTTP/1.1\r\n"


def test_a_refusal_names_the_detail_that_would_have_been_enough() -> None:
    with pytest.raises(ScopeError) as caught:
        verdict(http(), http_request("/api/v1/admin?x=1", method="POST", has_body=True))
    assert caught.value.enough == {
        "type": "http",
        "resource": "api",
        "actions": ["POST"],
        "paths": ["/v1/admin"],
        "args": {"query.x": "1", "body": "any"},
    }
    enough = dict(caught.value.enough)
    assert verdict(enough, http_request("/api/v1/admin?x=1", method="POST", has_body=True)) is not None


def test_a_bound_body_is_waited_for_and_written_anew() -> None:
    detail = http(actions=["POST"], args={"body.to": "ann", "body.text": "any"})
    assert verdict(detail, http_request("/api/v1/public/a", JSON, method="POST", has_body=True)) is None
    judged = verdict(
        detail, http_request("/api/v1/public/a", JSON, method="POST", body=b'{ "to" : "\\u0061nn", "text":"x" }')
    )
    assert judged is not None
    assert judged.body == b'{"to":"ann","text":"x"}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"to":"bob"}',
        b'{"to":"ann","to":"bob"}',
        b'{"to":"ann","cc":"bob"}',
        b'{"to":["ann"]}',
        b'{"to":{"x":"ann"}}',
        b'{"to":"ann","text.x":"bob"}',
        b'{"to":"ann","text[0]":"bob"}',
        b'["ann"]',
        b'"ann"',
        b"{}",
        b"",
        b'{"to":"ann"} ',
        b'{"to":"ann"}{}',
        b'{"to":"ann","text":NaN}',
        b'{"to":"ann","text":1e999}',
        b'{"to":"ann","text":"\\ud800"}',
        b'\xef\xbb\xbf{"to":"ann"}',
        b'{"to":"ann","text":"\xff"}',
        b'{"to":"ann","text":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
def test_a_body_that_is_not_just_what_was_granted_is_refused(body: bytes) -> None:
    detail = http(actions=["POST"], args={"body.to": "ann", "body.text": "any"})
    request = http_request("/api/v1/public/a", JSON, method="POST", body=body)
    if body == b'{"to":"ann"} ':
        assert verdict(detail, request) is not None
        return
    with pytest.raises((ScopeError, InvalidRequestError)):
        verdict(detail, request)


def test_a_body_to_be_judged_must_say_that_it_is_json() -> None:
    detail = http(actions=["POST"], args={"body.to": "any"})
    for line in ("Content-Type: text/plain", "X: y", "Content-Type: application/json; charset=utf-16"):
        with pytest.raises(InvalidRequestError) as refused:
            verdict(detail, http_request("/api/v1/public/a", line, method="POST", body=b"{}"))
        assert "`Content-Type: application/json`" in (refused.value.help or "")


def test_a_free_body_is_not_waited_for() -> None:
    detail = http(actions=["POST"], args={"body": "any"})
    judged = verdict(detail, http_request("/api/v1/public/a", method="POST", has_body=True))
    assert judged is not None
    assert judged.body is None


def test_the_first_detail_that_permits_is_the_one_debited() -> None:
    details = scope.parse([http(args={"query.q": "x"}), http(args={"query.q": "any"}), http(args="any")])
    matcher = compile_rules(details, "api")
    found = [authorize(matcher, shape(), http_request(f"/api/v1/public/a?{q}")) for q in ("q=x", "q=y", "z=1")]
    assert [judged.index for judged in found if judged is not None] == [0, 1, 2]


def test_a_named_header_is_an_argument_and_goes_along() -> None:
    detail = http(args={"header.x-account": {"one_of": ["a", "b"]}})
    judged = verdict(detail, http_request("/api/v1/public/a", "X-Account: a", "X-Other: c"))
    assert judged is not None
    assert judged.lines == b"x-account: a\r\n"
    for lines in (["X-Account: c"], [], ["X-Account: a", "X-Account: b"], ["X-Account: a", "Connection: x-account"]):
        with pytest.raises((ScopeError, InvalidRequestError)):
            verdict(detail, http_request("/api/v1/public/a", *lines))


def test_a_header_that_selects_an_account_is_never_just_dropped() -> None:
    openai = shape("openai")
    assert b"openai-organization" in openai.arguments
    with pytest.raises(ScopeError):
        verdict(http(), http_request("/api/v1/public/a", "OpenAI-Organization: org-1"), openai)
    judged = verdict(http(args="any"), http_request("/api/v1/public/a", "OpenAI-Organization: org-1"), openai)
    assert judged is not None
    assert judged.lines == b"openai-organization: org-1\r\n"


def test_a_range_must_be_granted_by_name() -> None:
    line = "Range: bytes=0-7"
    for args in ("any", {"query.q": "any"}, {}):
        with pytest.raises(ScopeError) as caught:
            verdict(http(args=args), http_request("/api/v1/public/a", line))
        assert caught.value.enough is not None
    judged = verdict(http(args={"header.range": "any"}), http_request("/api/v1/public/a", line))
    assert judged is not None
    assert judged.lines == b"range: bytes=0-7\r\n"


def test_an_operation_that_mints_credentials_must_be_named() -> None:
    openai = shape("openai")
    request = http_request("/api/v1/organization/admin_api_keys", method="POST")
    wide = {**ALL, "args": "any"}
    with pytest.raises(ScopeError, match="standing credential"):
        verdict(wide, request, openai)
    named = {**wide, "paths": ["/v1/organization/admin_api_keys"]}
    assert verdict(named, request, openai) is not None


@pytest.mark.parametrize("method", sorted(BODILESS))
def test_a_body_where_it_has_no_meaning_is_refused_unless_the_resource_takes_one(method: str) -> None:
    detail = {**ALL, "args": "any"}
    request = http_request("/api/v1/x", method=method, has_body=True)
    with pytest.raises(InvalidRequestError) as caught:
        verdict(detail, request)
    assert f'body_on=["{method}"]' in (caught.value.help or "")
    assert verdict(detail, request, shape(body_on=[method])) is not None
    assert verdict(detail, http_request("/api/v1/x", method=method)) is not None


def test_a_body_that_is_not_judged_keeps_its_coding() -> None:
    for args in ("any", {"body": "any"}):
        request = http_request("/api/v1/public/a", "Content-Encoding: gzip", method="POST", has_body=True)
        judged = verdict(http(actions=["POST"], args=args), request)
        assert judged is not None
        assert judged.lines == b"content-encoding: gzip\r\n"


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "GZIP", "x"])
def test_a_coded_body_whose_arguments_are_named_is_refused(coding: str) -> None:
    detail = http(actions=["POST"], args={"body.to": "ann"})
    request = http_request("/api/v1/public/a", JSON, f"Content-Encoding: {coding}", method="POST", has_body=True)
    with pytest.raises(CodingError):
        verdict(detail, request)


def test_a_coded_body_is_permitted_by_a_detail_that_does_not_look_into_it() -> None:
    details = scope.parse([http(actions=["POST"], args={"body.to": "ann"}), http(actions=["POST"], args="any")])
    request = http_request("/api/v1/public/a", JSON, "Content-Encoding: gzip", method="POST", has_body=True)
    judged = authorize(compile_rules(details, "api"), shape(), request)
    assert judged is not None
    assert (judged.index, judged.body) == (1, None)
    assert b"content-encoding: gzip\r\n" in judged.lines


def test_a_coding_without_a_body_is_dropped() -> None:
    judged = verdict(http(args="any"), http_request("/api/v1/public/a", "Content-Encoding: gzip"))
    assert judged is not None
    assert (judged.lines, judged.dropped) == (b"", b"remit-dropped: content-encoding\r\n")


def test_headers_go_along_where_all_arguments_are_free_and_are_told_where_not() -> None:
    lines = ("Git-Protocol: version=2", "traceparent: 00-1", "Accept: x/y")
    free = verdict(http(args="any"), http_request("/api/v1/public/a", *lines))
    bound = verdict(http(args={"query.q": "any"}), http_request("/api/v1/public/a", *lines))
    assert free is not None
    assert bound is not None
    assert free.lines == b"git-protocol: version=2\r\ntraceparent: 00-1\r\naccept: x/y\r\n"
    assert (bound.lines, bound.dropped) == (b"accept: x/y\r\n", b"remit-dropped: git-protocol, traceparent\r\n")


def test_a_body_written_anew_does_not_keep_what_was_said_about_the_old_one() -> None:
    details = scope.parse([http(actions=["POST"], args={"body.to": "bob"}), http(actions=["POST"], args="any")])
    request = http_request(
        "/api/v1/public/a", JSON, "Content-Digest: sha-256=:x:", method="POST", body=b'{"to": "ann"}'
    )
    judged = authorize(compile_rules(details, "api"), shape(), request)
    assert judged is not None
    assert (judged.index, judged.lines) == (1, b"content-type: application/json\r\n")
    assert judged.dropped == b"remit-dropped: content-digest\r\n"


def test_enough_permits_the_access_it_was_made_for() -> None:
    accesses = [
        Access("search", "GET", "/v1/a", args={"query.q": '"x"', "body.n": "7"}),
        Access("search", "GET", "/v1/a", args={"query.q": '"' + "x" * 3_000 + '"'}),
        Access("search", "GET", "/v1/search"),
    ]
    for access in accesses:
        [detail] = scope.parse([enough("http", access)])
        assert permits(detail, access)
