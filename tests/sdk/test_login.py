from __future__ import annotations

import httpx
import pytest

from remit.errors import DeniedError, GrantTokenError, InvalidRequestError, LapsedError, UnavailableError, UpstreamError
from remit.sdk.login import ClientRegistration, OpenIDClient, check_url, claims_of
from tests.sdk.issuer import URL, FakeIssuer, jwt

WHO = ClientRegistration(URL, "remit")


def at(issuer: FakeIssuer, who: ClientRegistration = WHO) -> OpenIDClient:
    return OpenIDClient(who, issuer.transport)


# -- by browser -------------------------------------------------------------------------------------------------------


def test_a_browser_brings_back_a_code_that_is_worth_an_id_token() -> None:
    issuer = FakeIssuer()
    tokens = at(issuer).browser(issuer.visit)
    assert (tokens.claims["sub"], tokens.refresh_token) == ("alice", "r-1")


@pytest.mark.parametrize(
    ("supported", "configured", "scope", "prompt"),
    [
        (["openid", "groups"], ("openid", "groups"), "openid groups", None),
        (["openid", "email", "profile"], ("openid",), "openid", None),  # Google's: it refuses what it does not know
        (None, ("openid",), "openid", None),
        ("offline_access", ("openid",), "openid", None),
        (["openid", "offline_access"], ("openid",), "openid offline_access", "consent"),
        (None, ("openid", "offline_access"), "openid offline_access", "consent"),
    ],
)
def test_a_refresh_token_is_asked_for_where_the_issuer_knows_how_or_the_configuration_says_so(
    supported: object, configured: tuple[str, ...], scope: str, prompt: str | None
) -> None:
    issuer = FakeIssuer(metadata={"scopes_supported": supported})
    who = ClientRegistration(URL, "remit", configured)
    at(issuer, who).browser(issuer.visit)
    assert (issuer.asked["scope"], issuer.asked.get("prompt")) == (scope, prompt)
    at(issuer, who).device(lambda _url, _code: None, lambda _seconds: None)
    assert next(form["scope"] for path, form in issuer.forms if path == "/device") == scope


def test_the_code_is_asked_for_with_pkce_at_a_loopback_literal() -> None:
    issuer = FakeIssuer()
    at(issuer).browser(issuer.visit)
    assert issuer.asked["code_challenge_method"] == "S256"
    assert issuer.asked["redirect_uri"].startswith("http://127.0.0.1:")
    assert issuer.asked["response_type"] == "code"


def test_a_login_has_a_nonce_of_its_own_and_asks_for_consent_to_be_renewed() -> None:
    issuer = FakeIssuer()
    tokens = at(issuer).browser(issuer.visit)
    assert tokens.claims["nonce"] == issuer.asked["nonce"]
    assert issuer.asked["prompt"] == "consent"


def test_an_id_token_with_another_nonce_belongs_to_another_login() -> None:
    issuer = FakeIssuer(claims={"nonce": "somebody else's"})
    with pytest.raises(GrantTokenError, match="another login"):
        at(issuer).browser(issuer.visit)


@pytest.mark.parametrize("claims", [{"iss": "https://evil.test"}, {"aud": "another"}, {"aud": ["x", "y"]}])
def test_an_id_token_of_another_issuer_or_client_is_refused(claims: dict[str, object]) -> None:
    issuer = FakeIssuer(claims=claims)
    with pytest.raises(GrantTokenError, match="not one of this issuer for us"):
        at(issuer).browser(issuer.visit)


@pytest.mark.parametrize("named", ["https://evil.test", ""])
def test_an_answer_that_names_another_issuer_or_none_is_refused(named: str) -> None:
    issuer = FakeIssuer(answer={"iss": named})
    with pytest.raises(DeniedError, match="not from the issuer"):
        at(issuer).browser(issuer.visit)
    assert issuer.forms == []


def test_an_issuer_that_does_not_name_itself_in_answers_need_not() -> None:
    issuer = FakeIssuer(answer={"iss": ""}, metadata={"authorization_response_iss_parameter_supported": False})
    assert at(issuer).browser(issuer.visit).claims["sub"] == "alice"


def test_what_the_issuer_refuses_is_told() -> None:
    issuer = FakeIssuer(answer={"code": "", "error": "access_denied", "error_description": "no\x1b[2J consent"})
    with pytest.raises(DeniedError, match=r"the issuer refused: no\[2J consent"):
        at(issuer).browser(issuer.visit)


def test_an_issuer_that_does_not_answer_is_named_with_what_to_do() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(UnavailableError, match=f"does not answer: `{URL}`") as refusal:
        OpenIDClient(WHO, httpx.MockTransport(away))
    assert "`remit doctor`" in (refusal.value.help or "")


def test_an_issuer_that_describes_itself_under_another_name_is_refused() -> None:
    with pytest.raises(UpstreamError, match="another name"):
        at(FakeIssuer(metadata={"issuer": "https://evil.test"}))


def test_an_endpoint_in_clear_is_refused() -> None:
    issuer = FakeIssuer(metadata={"token_endpoint": "http://login.test/token"})
    with pytest.raises(InvalidRequestError, match="https"):
        at(issuer).browser(issuer.visit)


@pytest.mark.parametrize("url", ["https://a.test", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost:3"])
def test_https_and_loopback_are_fit_for_tokens(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize("url", ["http://a.test", "ftp://127.0.0.1", "https://", "http://127.0.0.1.evil.test", "x"])
def test_nothing_else_is_fit_for_tokens(url: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_url(url)


# -- by device --------------------------------------------------------------------------------------------------------


def test_a_device_waits_as_long_as_it_is_told_and_longer_when_it_is_too_fast() -> None:
    issuer = FakeIssuer(polls=["authorization_pending", "slow_down", "authorization_pending"])
    said: list[tuple[str, str]] = []
    waits: list[float] = []
    tokens = at(issuer).device(lambda url, code: said.append((url, code)), waits.append)
    assert tokens.claims["sub"] == "alice"
    assert said == [(f"{URL}/enter", "BCDF")]
    assert waits == [7, 7, 12, 12]


@pytest.mark.parametrize(("polls", "kind"), [(["expired_token"], LapsedError), (["access_denied"], DeniedError)])
def test_a_device_gives_up_when_the_code_has_ended_or_the_human_said_no(
    polls: list[str], kind: type[Exception]
) -> None:
    issuer = FakeIssuer(polls=polls)
    with pytest.raises(kind):
        at(issuer).device(lambda *_: None, lambda _: None)


def test_a_device_gives_up_when_the_codes_time_is_over() -> None:
    issuer = FakeIssuer(polls=["authorization_pending"] * 20)
    waits: list[float] = []
    with pytest.raises(LapsedError):
        at(issuer).device(lambda *_: None, waits.append)
    assert sum(waits) == 63


@pytest.mark.parametrize("wrong", [{"user_code": None}, {"device_code": 7}, {"interval": "soon"}, {"expires_in": [60]}])
def test_a_device_says_what_is_wrong_with_the_answer_of_an_issuer(wrong: dict[str, object]) -> None:
    with pytest.raises(UpstreamError, match=next(iter(wrong))):
        at(FakeIssuer(device=wrong)).device(lambda *_: None, lambda _: None)


def test_an_issuer_without_device_flow_says_so() -> None:
    issuer = FakeIssuer(metadata={"device_authorization_endpoint": None})
    with pytest.raises(UnavailableError, match="device_authorization_endpoint") as refusal:
        at(issuer).device(lambda *_: None, lambda _: None)
    assert "without --device" in (refusal.value.help or "")


# -- afterwards -------------------------------------------------------------------------------------------------------


def test_a_refresh_gives_a_new_id_token_and_the_refresh_token_that_is_good_from_now_on() -> None:
    issuer = FakeIssuer()
    tokens = at(issuer).refresh("r-0", {"sub": "alice"})
    assert (tokens.claims["sub"], tokens.refresh_token) == ("alice", "r-1")
    assert issuer.forms[-1][1]["refresh_token"] == "r-0"


def test_a_refresh_token_that_does_not_rotate_stays() -> None:
    assert at(FakeIssuer(token={"refresh_token": None})).refresh("r-0", {"sub": "alice"}).refresh_token == "r-0"


def test_an_issuer_that_gives_no_new_id_token_asks_for_a_login() -> None:
    with pytest.raises(GrantTokenError, match="no new ID token") as refusal:
        at(FakeIssuer(token={"id_token": None})).refresh("r-0", {"sub": "alice"})
    assert refusal.value.help == "log in again with `remit login`"


def test_a_refresh_that_names_somebody_else_is_refused() -> None:
    with pytest.raises(GrantTokenError, match="somebody else"):
        at(FakeIssuer()).refresh("r-0", {"sub": "bob"})


def test_a_login_that_the_issuer_has_ended_asks_for_a_new_one() -> None:
    issuer = FakeIssuer(token={"error": "invalid_grant", "error_description": "revoked"})
    with pytest.raises(GrantTokenError, match="no longer knows this login: revoked"):
        at(issuer).refresh("r-0", {"sub": "alice"})


def test_logging_out_revokes_the_refresh_token_and_names_the_page_that_ends_the_session() -> None:
    issuer = FakeIssuer()
    there = at(issuer)
    page = there.log_out(there.browser(issuer.visit))
    assert issuer.forms[-1] == ("/revoke", {"token": "r-1", "token_type_hint": "refresh_token", "client_id": "remit"})
    assert page == f"{URL}/end?client_id=remit&logout_hint=alice"


def test_logging_out_where_nothing_is_advertised_tells_nobody() -> None:
    issuer = FakeIssuer(metadata={"revocation_endpoint": None, "end_session_endpoint": None})
    there = at(issuer)
    assert there.log_out(there.browser(issuer.visit)) is None
    assert [path for path, _ in issuer.forms] == ["/token"]


def test_tokens_do_not_print() -> None:
    issuer = FakeIssuer()
    assert "r-1" not in repr(at(issuer).browser(issuer.visit))


@pytest.mark.parametrize("token", ["", "a", "a.!.c", "a.W10.c", jwt({})[:-5].replace(".", "")])
def test_what_is_no_jwt_has_no_claims(token: str) -> None:
    with pytest.raises(UpstreamError):
        claims_of(token)
