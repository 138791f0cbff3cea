from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from remit.errors import InvalidRequestError, TokenError, UnavailableError
from remit.identity.issuers import FRESH, KEEP, RETRY, Issuer, read_metadata
from remit.jose import jwt
from remit.jose.jwt import Jwt, JwtProfile
from tests.identity.issuing import URL, Clock, Site, ec, issuer, public, signed


def token(kid: str = "e-1") -> Jwt:
    return jwt.read(signed({"sub": "a"}, ec(kid)), JwtProfile(frozenset({"jwt"})))


def verify(one: Issuer, kid: str = "e-1") -> Jwt:
    return asyncio.run(one.verified(token(kid)))


def move(clock: Clock, by: timedelta) -> None:
    clock.now += by


# -- documents --------------------------------------------------------------------------------------------------------


def test_the_document_of_an_issuer_says_where_it_is_reached() -> None:
    said = {
        "device_authorization_endpoint": f"{URL}/device",
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        "authorization_response_iss_parameter_supported": True,
    }
    found = read_metadata(Site(said=said).document(), URL)
    assert (found.jwks_uri, found.token_endpoint) == (f"{URL}/keys", f"{URL}/token")
    assert found.device_authorization_endpoint == f"{URL}/device"
    assert found.algorithms == frozenset({"ES256"})
    assert found.auth_methods == {"none", "client_secret_post"}
    assert found.names_itself


def test_a_list_in_a_document_may_be_long_but_not_endless() -> None:
    names = [str(number) for number in range(64)]
    assert read_metadata(Site(said={"token_endpoint_auth_methods_supported": names}).document(), URL).auth_methods >= {
        "63"
    }


def test_what_a_document_does_not_say_is_what_discovery_says_by_default() -> None:
    found = read_metadata(Site().document(), URL)
    assert (found.algorithms, found.auth_methods, found.names_itself) == (
        None,
        frozenset({"client_secret_basic"}),
        False,
    )


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.test"},
        {"issuer": f"{URL}/"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": 7},
        {"jwks_uri": "http://login.test/keys"},
        {"jwks_uri": "http://127.0.0.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "https://user:pw@login.test/keys"},
        {"token_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "http://login.test/auth"},
        {"id_token_signing_alg_values_supported": "ES256"},
        {"id_token_signing_alg_values_supported": [7]},
        {"id_token_signing_alg_values_supported": ["x"] * 65},
        {"id_token_signing_alg_values_supported": {}},
    ],
)
def test_a_document_that_is_not_the_issuer_s_own_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        read_metadata(Site(said=said).document(), URL)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"issuer":"%s","issuer":"%s"}' % (URL.encode(), URL.encode())])
def test_a_document_that_is_no_strict_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_metadata(raw, URL)


def test_an_issuer_on_this_host_needs_no_https() -> None:
    url = "http://127.0.0.1:5000"
    assert read_metadata(Site(url=url).document(), url).jwks_uri == f"{url}/keys"


@pytest.mark.parametrize(
    ("url", "well_known", "asked"),
    [
        ("https://a.test/t", None, "https://a.test/t/.well-known/openid-configuration"),
        ("https://a.test/t/", None, "https://a.test/t/.well-known/openid-configuration"),
        ("https://a.test/t", "/.well-known/ssf-configuration", "https://a.test/.well-known/ssf-configuration/t"),
        ("https://a.test", "/.well-known/ssf-configuration", "https://a.test/.well-known/ssf-configuration"),
    ],
)
def test_a_document_is_where_its_specification_says(url: str, well_known: str | None, asked: str) -> None:
    site = Site(url=url, down=True)
    made = Issuer(url, site, Clock()) if well_known is None else Issuer(url, site, Clock(), well_known)
    with pytest.raises(UnavailableError):
        asyncio.run(made.metadata())
    assert site.asked == [asked]


# -- keys and time ----------------------------------------------------------------------------------------------------


def test_keys_are_fetched_once_for_many_tokens() -> None:
    site = Site()
    made = issuer(site)
    for _ in range(3):
        verify(made)
    assert len(site.asked) == 2  # the document and the keys


def test_keys_are_fetched_again_when_they_are_no_longer_fresh() -> None:
    site, clock = Site(), Clock()
    made = issuer(site, clock)
    verify(made)
    move(clock, FRESH)
    verify(made)
    assert len(site.asked) == 4


def test_a_key_that_is_not_known_yet_is_fetched_at_once() -> None:
    site, clock = Site(), Clock()
    made = issuer(site, clock)
    verify(made)
    site.keys = [public(ec("e-2"))]
    move(clock, RETRY)
    assert verify(made, "e-2").kid == "e-2"
    with pytest.raises(TokenError, match="not signed by a key"):
        verify(made)  # the old key is gone with the set it was in


def test_tokens_by_keys_that_do_not_exist_do_not_make_the_broker_ask_on_and_on() -> None:
    site, clock = Site(), Clock()
    made = issuer(site, clock)
    verify(made)
    for _ in range(20):
        with pytest.raises(TokenError, match="not signed by a key"):
            verify(made, "e-9")
    assert len(site.asked) == 2
    move(clock, RETRY)
    for _ in range(20):
        with pytest.raises(TokenError):
            verify(made, "e-9")
    assert len(site.asked) == 4


def test_while_an_issuer_is_down_its_keys_count_for_a_bounded_time_and_then_nobody_is_let_in() -> None:
    site, clock = Site(), Clock()
    made = issuer(site, clock)
    verify(made)
    site.down = True
    move(clock, KEEP - timedelta(seconds=1))
    assert verify(made).kid == "e-1"
    move(clock, timedelta(seconds=1))
    with pytest.raises(UnavailableError, match="cannot be asked") as caught:
        verify(made)
    assert caught.value.retry_after == RETRY.total_seconds()
    site.down = False
    move(clock, RETRY)
    assert verify(made).kid == "e-1"


def test_an_issuer_that_is_down_is_asked_no_more_than_it_can_answer() -> None:
    site, clock = Site(down=True), Clock()
    made = issuer(site, clock)
    for _ in range(20):
        with pytest.raises(UnavailableError):
            verify(made)
    assert len(site.asked) == 1


@pytest.mark.parametrize("broken", ["document", "keys"])
def test_an_issuer_that_answers_nonsense_is_as_good_as_down(broken: str, caplog: pytest.LogCaptureFixture) -> None:
    site, clock = Site(), Clock()
    made = issuer(site, clock)
    verify(made)
    if broken == "document":
        site.said = {"issuer": "https://evil.test"}
    else:
        site.keys = [{}] * 101
    move(clock, FRESH)
    assert verify(made).kid == "e-1"
    assert "cannot be asked" in caplog.text
    move(clock, KEEP)
    with pytest.raises(UnavailableError):
        verify(made)


def test_an_issuer_that_withdraws_all_keys_is_believed_no_more() -> None:
    site, clock = Site(), Clock()
    made = issuer(site, clock)
    verify(made)
    site.keys = []
    move(clock, FRESH)
    with pytest.raises(TokenError, match="not signed by a key"):
        verify(made)


def test_many_who_wait_for_the_same_keys_fetch_them_once() -> None:
    site = Site()
    made = issuer(site)

    async def all_at_once() -> None:
        await asyncio.gather(*(made.verified(token()) for _ in range(20)))

    asyncio.run(all_at_once())
    assert len(site.asked) == 2


def test_many_who_wait_for_a_slow_issuer_do_not_ask_it_one_after_the_other() -> None:
    site, clock = Site(), Clock()

    async def slowly(url: str) -> bytes:
        move(clock, RETRY)
        return await site(url)

    made = Issuer(URL, slowly, clock)

    async def all_at_once() -> None:
        await asyncio.gather(*(made.verified(token()) for _ in range(5)))

    asyncio.run(all_at_once())
    assert len(site.asked) == 2


def while_asked(passed: timedelta, *, down: bool) -> tuple[bool, list[Jwt | BaseException]]:
    """Return whether a second token was verified while keys were fetched for a first, and what became of both."""
    clock, gate, asked, site = Clock(), asyncio.Event(), asyncio.Event(), Site()

    async def slowly(url: str) -> bytes:
        if clock.now > Clock().now:
            asked.set()
            await gate.wait()
        return await site(url)

    made = Issuer(URL, slowly, clock)

    async def body() -> tuple[bool, list[Jwt | BaseException]]:
        await made.verified(token())
        move(clock, passed)
        first = asyncio.create_task(made.verified(token()))
        await asked.wait()
        second = asyncio.create_task(made.verified(token()))
        for _ in range(5):
            await asyncio.sleep(0)
        at_once, site.down = second.done(), down
        gate.set()
        return at_once, [*await asyncio.gather(first, second, return_exceptions=True)]

    return asyncio.run(body())


def test_keys_that_are_not_fresh_serve_while_somebody_fetches_new_ones() -> None:
    at_once, found = while_asked(FRESH, down=False)
    assert at_once
    assert all(isinstance(one, Jwt) for one in found)


@pytest.mark.parametrize(("down", "outcome"), [(False, Jwt), (True, UnavailableError)])
def test_keys_that_are_kept_too_long_serve_nobody_not_even_meanwhile(down: bool, outcome: type) -> None:  # noqa: FBT001 - a case
    at_once, found = while_asked(KEEP, down=down)
    assert not at_once
    assert all(isinstance(one, outcome) for one in found)


def test_the_keys_of_one_issuer_verify_nothing_of_another() -> None:
    one = issuer(Site(keys=[public(ec("e-2"))]))
    with pytest.raises(TokenError, match="not signed by a key"):
        verify(one)
