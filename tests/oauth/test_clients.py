from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from starlette.requests import Request

from remit import jose
from remit.core.principal import JWT_BEARER, JWT_SPIFFE, Holder, Workload
from remit.errors import InvalidRequestError, RemitError, ReplayError, TokenError, UnauthenticatedError
from remit.oauth.clients import Clients, OAuthClient
from remit.web.authentication import SocketAuth, TokenAuth
from remit.web.verifier import Verifier, assertion_type

ME = "spiffe://prod.example/ns/agents/planner"
OIDC = "https://issuer.example#repo:org/app"
HOST = "remit.example"
CHAIN = (b"leaf", b"node")


class Known:
    """Verifies whatever is shown as one workload, and remembers what that was."""

    def __init__(self, name: str = ME, error: RemitError | None = None) -> None:
        self._name, self._error = name, error
        self.shown: tuple[object, ...] = ()

    def _found(self, method: str, *shown: object) -> Workload:
        self.shown = shown
        if self._error is not None:
            raise self._error
        return Workload(self._name, method, datetime(2026, 11, 25, tzinfo=UTC))

    async def assertion(self, token: str, kind: str) -> Workload:
        return self._found("jwt-svid", token, kind)

    async def named(self, wit: str) -> Workload:
        return self._found("wit", wit)

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        return self._found("x509-svid", *chain)

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        return self._found("wit", wit, wpt, target, token)


T = TypeVar("T")


class Prover:
    """Nobody has a token."""

    async def holder(self, method: str, url: str, headers: object, certificates: object) -> Holder:
        del method, url, headers, certificates
        raise UnauthenticatedError


class Trusting(Verifier):
    """Lets whatever was shown count, each time, and records nothing."""

    def __init__(self) -> None:
        self.issuer = "https://issuer.example"

    async def spend(self, workload: Workload, texts: Sequence[str], url: str) -> Workload:
        del texts, url
        return workload

    async def authenticate(self, said: Awaitable[T]) -> T:
        return await said


WEB = TokenAuth(frozenset({HOST}), Prover().holder, scheme="https")


def request(
    headers: Sequence[tuple[str, str]] = (), certificates: Sequence[bytes] = (), authority: TokenAuth | SocketAuth = WEB
) -> Request:
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": "/oauth/token",
            "raw_path": b"/oauth/token",
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (*headers, ("host", HOST))],
            "state": {"listener": authority, "certificates": tuple(certificates)},
        }
    )


def authenticated(
    form: Mapping[str, str], by: Known | None = None, asked: Request | None = None, *, nobody: bool = False
) -> OAuthClient:
    who = Clients(None if nobody else by or Known(), Trusting())
    return asyncio.run(who.authenticate(asked or request(), form))


ASSERTION = {"client_assertion": "a.b.c", "client_assertion_type": JWT_SPIFFE}
WIT = (("Workload-Identity-Token", "w.i.t"), ("Workload-Proof-Token", "w.p.t"))


# -- public -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["", "remit-cli", "https://client.example/app.json"])
def test_a_client_that_proves_nothing_is_public_under_whatever_name(named: str) -> None:
    found = authenticated({"client_id": named} if named else {})
    assert (found.id, found.workload) == (named, None)
    found.check_named()


@pytest.mark.parametrize("named", [ME, "spiffe://", "wimse://prod.example/agents/a", OIDC, "http://localhost#"])
def test_a_workloads_name_has_to_be_proven(named: str) -> None:
    with pytest.raises(UnauthenticatedError, match="prove"):
        authenticated({"client_id": named}).check_named()


@pytest.mark.parametrize("named", ["a b", "a\n", '"', "é", "a" * 513, "{}"])
def test_a_name_is_what_a_uri_may_hold(named: str) -> None:
    with pytest.raises(InvalidRequestError):
        authenticated({"client_id": named})


def test_nobody_authenticates_by_authorization() -> None:
    for value in ("Basic cmVtaXQ6", "Bearer token"):
        with pytest.raises(UnauthenticatedError):
            authenticated({}, asked=request([("Authorization", value)]))


# -- assertions (RFC 7521 §4.2, RFC 7523 §2.2) ------------------------------------------------------------------------


@pytest.mark.parametrize("named", [{}, {"client_id": ME}])
def test_a_client_assertion_names_the_client(named: dict[str, str]) -> None:
    by = Known()
    found = authenticated({**ASSERTION, **named}, by)
    assert found.id == ME
    assert found.workload is not None
    assert by.shown == ("a.b.c", JWT_SPIFFE)
    found.check_named()


@pytest.mark.parametrize(
    "named", [f"{ME}/child", "spiffe://prod.example", "planner", ME.upper(), OIDC, ME.removeprefix("spiffe://")]
)
def test_a_client_id_that_is_not_its_subject_is_refused(named: str) -> None:
    with pytest.raises(UnauthenticatedError, match="client_id"):
        authenticated({**ASSERTION, "client_id": named})


@pytest.mark.parametrize("named", ["", OIDC, "repo:org/app"])
def test_an_oidc_token_may_be_named_by_its_subject_alone(named: str) -> None:
    form = {"client_assertion": "a.b.c", "client_assertion_type": JWT_BEARER, "client_id": named}
    assert authenticated(form, Known(OIDC)).id == OIDC


@pytest.mark.parametrize(
    "form",
    [
        {"client_assertion": "a.b.c"},
        {"client_assertion_type": JWT_SPIFFE},
        {"client_assertion": "a.b.c", "client_assertion_type": ""},
        {"client_assertion": "a.b.c", "client_assertion_type": "jwt-spiffe"},
        {
            "client_assertion": "a.b.c",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        },
    ],
)
def test_an_assertion_has_a_type_that_is_known(form: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        authenticated(form)


def test_without_verifiers_no_assertion_counts() -> None:
    with pytest.raises(UnauthenticatedError, match="no workloads are let in"):
        authenticated(ASSERTION, nobody=True)


def test_a_bad_assertion_is_an_invalid_client_with_its_reason() -> None:
    for error in (TokenError("its signature does not hold"), UnauthenticatedError("it has expired")):
        with pytest.raises(UnauthenticatedError) as caught:
            authenticated(ASSERTION, Known(error=error))
        assert (caught.value.detail, caught.value.oauth, caught.value.status) == (error.detail, "invalid_client", 401)


# -- certificates (RFC 8705 §2, draft-ietf-oauth-spiffe-client-auth §3.2) ---------------------------------------------


def test_a_certificate_counts_for_the_client_that_names_its_spiffe_id() -> None:
    by = Known()
    assert authenticated({"client_id": ME}, by, request(certificates=CHAIN)).id == ME
    assert by.shown == CHAIN


def test_a_certificate_for_another_name_is_refused() -> None:
    with pytest.raises(UnauthenticatedError, match="client_id"):
        authenticated({"client_id": f"{ME}/child"}, asked=request(certificates=CHAIN))


@pytest.mark.parametrize("form", [{}, {"client_id": "remit-cli"}])
def test_a_certificate_alone_is_no_claim_to_a_name(form: dict[str, str]) -> None:
    by = Known()
    assert authenticated(form, by, request(certificates=CHAIN)).workload is None
    assert by.shown == ()


# -- WIT and WPT ------------------------------------------------------------------------------------------------------


def test_a_wit_comes_with_its_proof_for_this_very_url() -> None:
    by = Known()
    assert authenticated({}, by, request(WIT)).id == ME
    assert by.shown == ("w.i.t", "w.p.t", "https://remit.example/oauth/token", None)


def test_the_proof_covers_the_token_that_is_to_be_exchanged() -> None:
    by = Known()
    authenticated({"subject_token": "token"}, by, request(WIT))
    assert by.shown[3] == "token"


@pytest.mark.parametrize("host", [HOST, "other.example", "localhost"])
def test_on_a_socket_file_the_proof_is_for_the_issuer_whatever_host_its_maker_writes(host: str) -> None:
    by = Known()
    sent = request((*WIT, ("Host", host)), authority=SocketAuth(Holder("task", "grant")))
    authenticated({}, by, sent)
    assert by.shown == ("w.i.t", "w.p.t", "https://issuer.example/oauth/token", None)


@pytest.mark.parametrize("headers", [WIT[:1], WIT[1:], (*WIT, WIT[0]), (*WIT, WIT[1])])
def test_there_is_one_wit_and_one_proof(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(InvalidRequestError):
        authenticated({}, asked=request(headers))


@pytest.mark.parametrize("error", [UnauthenticatedError("it has expired"), ReplayError()])
def test_a_bad_wit_is_a_bad_request(error: RemitError) -> None:
    """draft-ietf-wimse-wpt: 400, as there is no challenge to answer with."""
    with pytest.raises(TokenError) as caught:
        authenticated({}, Known(error=error), request(WIT))
    assert caught.value.detail == error.detail


# -- one way ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "headers", "certificates"),
    [
        (ASSERTION, WIT, ()),
        ({**ASSERTION, "client_id": ME}, (), CHAIN),
        ({"client_id": ME}, WIT, CHAIN),
    ],
)
def test_a_client_authenticates_in_one_way(
    form: dict[str, str], headers: tuple[tuple[str, str], ...], certificates: tuple[bytes, ...]
) -> None:
    """RFC 6749 §2.3."""
    with pytest.raises(InvalidRequestError, match="one way"):
        authenticated(form, asked=request(headers, certificates))


# -- actor tokens -----------------------------------------------------------------------------------------------------


def _jwt(claims: object) -> str:
    return ".".join(jose.encode(part) for part in (b'{"alg":"ES256"}', json.dumps(claims).encode(), b"signature"))


@pytest.mark.parametrize(
    ("sub", "expected"),
    [(ME, JWT_SPIFFE), ("system:serviceaccount:ns:app", JWT_BEARER), (None, JWT_BEARER), (7, JWT_BEARER)],
)
def test_a_workloads_token_is_verified_as_what_its_subject_says(sub: object, expected: str) -> None:
    assert assertion_type(_jwt({"sub": sub})) == expected


@pytest.mark.parametrize("text", ["", "a.b", _jwt([]), _jwt("text")])
def test_what_is_no_token_has_no_type(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        assertion_type(text)
