from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from remit import errors
from remit.errors import InvalidRequestError, RemitError, UnavailableError, UpstreamError
from remit.sdk import AsyncClient, Client, Place, verbs
from remit.sdk._wire import ApiCall, Flow, ask, encoded, error_of

CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, RemitError)]
Handler = Callable[[httpx.Request], httpx.Response]
NOWHERE = Place(Path("/nowhere"))


def driven(flow: Flow[object], handler: Handler) -> object:
    """Run a flow, blocking."""
    with Client(NOWHERE, transport=httpx.MockTransport(handler)) as client:
        return client.run(flow)


def adriven(flow: Flow[object], handler: Handler) -> object:
    """Run a flow, async: it must do the same."""

    async def main() -> object:
        async with AsyncClient(NOWHERE, transport=httpx.MockTransport(handler)) as client:
            return await client.run(flow)

    return asyncio.run(main())


BOTH = pytest.mark.parametrize("run", [driven, adriven], ids=["blocking", "async"])
Run = Callable[[Flow[object], Handler], object]


def two() -> Flow[object]:
    first = yield from ask(ApiCall("GET", "/first", query={"n": 1}))
    return (yield from ask(ApiCall("POST", "/second", body=first, headers={"x-h": "1"})))


@BOTH
def test_a_flow_sends_its_calls_in_order_and_returns_its_result(run: Run) -> None:
    seen: list[tuple[str, bytes]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((str(request.url), request.content))
        return httpx.Response(200, json={"n": len(seen)})

    assert run(two(), handler) == {"n": 2}
    assert seen == [("http://localhost/first?n=1", b""), ("http://localhost/second", b'{"n":1}')]


@BOTH
@pytest.mark.parametrize("part", ["body", "form", "query"])
def test_what_is_no_text_is_an_error_and_not_sent(run: Run, part: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request)

    with pytest.raises(InvalidRequestError, match="no text"):
        run(ask(ApiCall("POST", "/t", **{part: {"purpose": "\udcff"}})), handler)


@BOTH
def test_a_form_is_sent_url_encoded(run: Run) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        return httpx.Response(200, json={"form": request.content.decode()})

    assert run(ask(ApiCall("POST", "/t", form={"a": "b c"})), handler) == {"form": "a=b+c"}


@BOTH
@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (httpx.ConnectError("x"), "no broker answers"),
        (httpx.ReadTimeout("x"), "did not answer in time"),
        (httpx.RemoteProtocolError("x"), "hung up"),
    ],
)
def test_a_broken_connection_is_said_and_nothing_is_sent_again(
    run: Run, raised: httpx.TransportError, text: str
) -> None:
    calls = 0

    def handler(_: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        raise raised

    with pytest.raises(UnavailableError, match=text) as error:
        run(ask(ApiCall("POST", "/v1/x")), handler)
    assert error.value.__cause__ is raised
    assert calls == 1


@BOTH
def test_an_answer_that_is_not_json_is_an_error(run: Run) -> None:
    with pytest.raises(UpstreamError, match="not JSON"):
        run(ask(ApiCall("GET", "/")), lambda _: httpx.Response(200, text="<html>"))


@BOTH
def test_an_empty_answer_is_an_empty_object(run: Run) -> None:
    assert run(ask(ApiCall("DELETE", "/")), lambda _: httpx.Response(204)) == {}


@BOTH
def test_text_is_returned_as_it_came_and_its_errors_are_raised(run: Run) -> None:
    assert run(verbs.checkpoint(), lambda _: httpx.Response(200, text="note\n")) == "note\n"
    with pytest.raises(errors.NotFoundError):
        run(verbs.checkpoint(), lambda _: httpx.Response(404))


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CLASSES)
def test_each_problem_is_raised_as_its_own_class(kind: type[RemitError]) -> None:
    document = {"type": f"http://b/problems/{kind.code}", "code": kind.code, "detail": "because", "status": kind.status}
    assert type(error_of(httpx.Response(kind.status, json=document))) is kind
    del document["code"]
    assert type(error_of(httpx.Response(kind.status, json=document))) is kind


def test_a_problem_keeps_what_it_says() -> None:
    document = {
        "code": "attenuation",
        "detail": "too wide",
        "help": "ask for less",
        "offending": [{"type": "http"}, "noise"],
        "enough": {"type": "http", "resource": "search"},
    }
    error = error_of(httpx.Response(403, json=document, headers={"retry-after": "7"}))
    assert (error.detail, error.help, error.retry_after) == ("too wide", "ask for less", 7)
    assert error.offending == ({"type": "http"},)
    assert error.enough == {"type": "http", "resource": "search"}


def test_an_oauth_error_is_raised_as_the_class_of_its_name() -> None:
    answer = httpx.Response(400, json={"error": "invalid_grant", "error_description": "it has ended"})
    error = error_of(answer)
    assert error.detail == "it has ended"
    assert isinstance(error, RemitError)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code": 7, "detail": ["x"], "offending": {}}'])
def test_an_error_without_a_problem_is_told_by_its_status(body: bytes) -> None:
    error = error_of(httpx.Response(404, content=body))
    assert type(error) is errors.NotFoundError
    assert error.detail == errors.NotFoundError.__doc__


def test_a_status_of_no_class_is_an_internal_error() -> None:
    assert type(error_of(httpx.Response(418))) is RemitError


def test_a_failure_of_the_broker_names_the_instance_in_its_log() -> None:
    failed = error_of(httpx.Response(500, json={"code": "internal", "instance": "urn:remit:instance:1"}))
    refused = error_of(httpx.Response(403, json={"code": "denied", "instance": "urn:remit:instance:2"}))
    assert failed.__notes__ == ["instance: urn:remit:instance:1"]
    assert not hasattr(refused, "__notes__")


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", ""])
def test_a_retry_that_is_no_number_of_seconds_is_left_out(value: str) -> None:
    assert error_of(httpx.Response(429, headers={"retry-after": value})).retry_after is None


def test_json_in_a_form_is_compact_and_finite() -> None:
    assert encoded([{"a": 1}]) == '[{"a":1}]'
    with pytest.raises(ValueError, match="JSON"):
        encoded(float("nan"))
