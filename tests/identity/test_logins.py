"""Logins at an issuer that answers over authlib's own client, whatever a test puts into its answers."""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest

from remit.core.principal import Human
from remit.core.secret import Secret
from remit.errors import GrantTokenError, RemitError, StepUpError, UnavailableError
from remit.identity import humans
from remit.identity.humans import IssuedHumans, IssuerLogins, Registration
from remit.ports.identity import Login
from tests.identity.issuing import URL, Clock, Site, issuer, signed

BACK = "http://127.0.0.1:8470/oauth/callback"
SECRET = "the-secret"


@dataclass
class World:
    """An issuer with a token endpoint, and remit as its client."""

    site: Site = field(default_factory=Site)
    clock: Clock = field(default_factory=Clock)
    registration: dict[str, Any] = field(default_factory=lambda: {"secret": Secret(SECRET)})
    claims: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    answer: dict[str, Any] = field(default_factory=dict)  # over the usual
    broken: httpx.HTTPError | None = None
    forms: list[dict[str, str]] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    asked: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one = replace(Registration(issuer(self.site, self.clock), "remit"), **self.registration)
        self.logins = IssuerLogins(IssuedHumans((one,), "https://remit.test", self.clock), self.transport)

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self.tokens)

    def tokens(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{URL}/token"
        if self.broken is not None:
            raise self.broken
        self.forms.append({name: values[0] for name, values in parse_qs(request.content.decode()).items()})
        self.headers.append(request.headers)
        now = {"iat": self.clock.at(), "exp": self.clock.at(minutes=5), "auth_time": self.clock.at()}
        claims = {"iss": URL, "sub": "alice", "aud": "remit", "nonce": self.asked.get("nonce"), **now, **self.claims}
        kept = {name: value for name, value in claims.items() if value is not ...}
        told = {"access_token": "a", "token_type": "Bearer", "id_token": signed(kept), **self.answer}
        return httpx.Response(self.status, json={name: value for name, value in told.items() if value is not None})

    def begin(self, acr: tuple[str, ...] = (), *, anew: bool = False, **more: str) -> str:
        whole = {"back": BACK, "state": "s-1", "nonce": "n-1", "issuer": URL, **more}
        self.login = Login(**whole, acr=acr, since=self.clock() if anew else None)
        url = asyncio.run(self.logins.begin(self.login))
        self.asked = dict(parse_qsl(urlsplit(url).query))
        return url

    def finish(self, query: str | None = None, came: str = BACK, **over: str) -> Human:
        query = urlencode({"code": "c-1", "state": "s-1", "iss": URL}) if query is None else query
        login = replace(self.login, **over)  # type: ignore[arg-type] # texts alone
        return asyncio.run(self.logins.finish(query, came, login))


def test_a_browser_is_sent_off_with_what_its_answer_is_held_to() -> None:
    world = World(registration={"secret": Secret(SECRET), "scopes": ("openid", "groups")})
    url = world.begin()
    assert url.startswith(f"{URL}/auth?")
    challenge = world.asked.pop("code_challenge")
    assert world.asked == {
        "response_type": "code",
        "client_id": "remit",
        "redirect_uri": BACK,
        "scope": "openid groups",
        "state": "s-1",
        "nonce": "n-1",
        "code_challenge_method": "S256",
    }
    world.finish()
    verifier = world.forms[0]["code_verifier"]
    assert base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode() == challenge
    assert len(verifier) >= 43


def test_a_human_who_comes_back_is_who_the_issuer_says() -> None:
    world = World()
    world.begin()
    human = world.finish()
    assert (human.subject.sub, human.client, human.nonce) == (f"{URL}#alice", "remit", "n-1")
    form = world.forms[0]
    assert (form["grant_type"], form["code"], form["redirect_uri"]) == ("authorization_code", "c-1", BACK)


@pytest.mark.parametrize(
    ("methods", "how"),
    [(None, "basic"), (["client_secret_basic", "client_secret_post"], "basic"), (["client_secret_post"], "post")],
)
def test_a_confidential_client_proves_itself_as_the_issuer_takes_it(methods: list[str] | None, how: str) -> None:
    world = World(site=Site(said={"token_endpoint_auth_methods_supported": methods}))
    world.begin()
    world.finish()
    basic = "Basic " + base64.b64encode(f"remit:{SECRET}".encode()).decode()
    assert (world.headers[0].get("authorization") == basic) == (how == "basic")
    assert (world.forms[0].get("client_secret") == SECRET) == (how == "post")


@pytest.mark.parametrize(
    ("method", "told"), [("client_secret_basic", "p%25+w%3A%E2%82%AC"), ("client_secret_post", None)]
)
def test_a_secret_of_any_characters_arrives_as_it_is(method: str, told: str | None) -> None:
    site = Site(said={"token_endpoint_auth_methods_supported": [method]})
    world = World(site=site, registration={"secret": Secret("p% w:€")})
    world.begin()
    world.finish()
    if told is not None:
        assert world.headers[0]["authorization"] == "Basic " + base64.b64encode(f"remit:{told}".encode()).decode()
    else:
        assert world.forms[0]["client_secret"] == "p% w:€"


@pytest.mark.attack("OAU-08")
def test_no_browser_is_sent_off_as_a_client_that_anybody_can_be() -> None:
    with pytest.raises(GrantTokenError, match="at this issuer"):
        World(registration={"secret": None}).begin()


@pytest.mark.parametrize(
    "query",
    [
        "",
        "nonsense",
        "code=c-1",
        "code=c-1&state=s-2",
        "code=c-1&code=c-2&state=s-1",
        "code=c-1&state=s-1&state=s-1",
        "code=&state=s-1",
        "state=s-1",
        "error=access_denied&state=s-1",
        "code=c-1&error=access_denied&state=s-1",
        f"code=c-1&state=s-1&iss={URL}/",
        "code=c-1&state=s-1&iss=https%3A%2F%2Fevil.test",
        "code=c-1&state=s-1&iss=",
        "code=c-1&state=s-1&x=" + "a" * (humans.MAX_QUERY - 20),
        "&".join(["code=c-1&state=s-1", *(f"x{n}=1" for n in range(64))]),
        "code=%ff&state=s-1",
    ],
)
def test_an_answer_that_is_not_to_this_login_is_not_redeemed(query: str) -> None:
    world = World()
    world.begin()
    with pytest.raises(GrantTokenError):
        world.finish(query)
    assert world.forms == []


def test_what_an_issuer_adds_to_its_answer_means_nothing() -> None:
    """RFC 6749 §4.1.2: the client must ignore what it does not know, however often it comes."""
    world = World()
    world.begin()
    assert world.finish(f"code=c-1&state=s-1&iss={URL}&x=1&x=2&session_state=y&code_id=z").client == "remit"


def test_an_issuer_that_names_itself_in_its_answers_always_does() -> None:
    world = World(site=Site(said={"authorization_response_iss_parameter_supported": True}))
    world.begin()
    with pytest.raises(GrantTokenError, match="another issuer"):
        world.finish("code=c-1&state=s-1")
    silent = World()
    silent.begin()
    assert silent.finish("code=c-1&state=s-1").client == "remit"


@pytest.mark.parametrize("over", [{"state": "s-2"}, {"nonce": "n-2"}, {"back": f"{BACK}/2"}])
def test_a_login_counts_for_what_it_was_begun_for(over: dict[str, str]) -> None:
    """The verifier is of that login, place and request alone: the issuer takes no other (RFC 7636 §4.6)."""
    world = World()
    world.begin()
    query = urlencode({"code": "c-1", "state": over.get("state", "s-1"), "iss": URL})
    with suppress(GrantTokenError):  # this issuer gives an ID token for whatever it is shown
        world.finish(query, over.get("back", BACK), **over)
    verifier = world.forms[0]["code_verifier"].encode()
    challenge = base64.urlsafe_b64encode(sha256(verifier).digest()).rstrip(b"=").decode()
    assert challenge != world.asked["code_challenge"]


def test_a_login_comes_back_to_where_it_was_sent_from() -> None:
    world = World()
    world.begin()
    with pytest.raises(GrantTokenError, match="begun"):
        world.finish(came=f"{BACK}/2")
    assert world.forms == []


@pytest.mark.attack("OAU-14")
def test_however_many_logins_are_begun_the_first_counts() -> None:
    world = World()
    world.begin()
    first = world.login
    for number in range(2_000):
        world.begin(state=f"s-{number}")
    world.login = first
    assert world.finish().subject.sub == f"{URL}#alice"


def test_two_processes_know_nothing_of_each_others_logins() -> None:
    world, other = World(), World()
    world.begin()
    other.begin()
    assert world.asked["code_challenge"] != other.asked["code_challenge"]


@pytest.mark.parametrize(
    ("claims", "error", "says"),
    [
        ({"nonce": "n-2"}, GrantTokenError, "this request"),
        ({"nonce": None}, GrantTokenError, "this request"),
        ({"aud": "another"}, RemitError, "meant"),
        ({"iss": "https://evil.test"}, GrantTokenError, "trusted"),
        ({"exp": 1}, GrantTokenError, "expired"),
    ],
)
def test_the_token_that_a_code_is_redeemed_for_is_verified_like_any_other(
    claims: dict[str, Any], error: type[RemitError], says: str
) -> None:
    world = World(claims=claims)
    world.begin()
    with pytest.raises(error, match=says):
        world.finish()


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (400, {"error": "invalid_grant", "error_description": "c-1 is spent"}, GrantTokenError),
        (401, {"error": "invalid_client"}, GrantTokenError),
        (200, {"id_token": None}, GrantTokenError),
        (200, {"id_token": ""}, GrantTokenError),
        (200, {"id_token": {"a": 1}}, GrantTokenError),
        (500, {}, UnavailableError),
    ],
)
def test_a_code_that_the_issuer_does_not_redeem_lets_nobody_in(
    status: int, answer: dict[str, Any], error: type[RemitError]
) -> None:
    world = World(status=status, answer=answer)
    world.begin()
    with pytest.raises(error) as caught:
        world.finish()
    assert "spent" not in str(caught.value)


@pytest.mark.parametrize("broken", [httpx.ConnectError("no"), httpx.ReadTimeout("no"), httpx.ReadError("too large")])
def test_an_issuer_that_does_not_answer_lets_nobody_in(broken: httpx.HTTPError) -> None:
    world = World(broken=broken)
    world.begin()
    with pytest.raises(UnavailableError, match="cannot be asked"):
        world.finish()


@pytest.mark.parametrize("missing", ["authorization_endpoint", "token_endpoint"])
def test_an_issuer_without_browsers_is_said(missing: str) -> None:
    with pytest.raises(UnavailableError, match="browser"):
        World(site=Site(said={missing: None})).begin()


# -- step-up ----------------------------------------------------------------------------------------------------------


def test_a_step_up_asks_for_a_new_and_stronger_proof() -> None:
    world = World(claims={"acr": "phr"})
    world.begin(acr=("phr", "phrh"))
    assert (world.asked["acr_values"], world.asked["max_age"], world.asked["prompt"]) == ("phr phrh", "0", "login")
    assert world.finish().subject.acr == "phr"


@pytest.mark.parametrize(
    "claims",
    [{"acr": "pwd"}, {}, {"acr": "phr phrh"}, {"acr": "PHR"}, {"acr": "phr", "auth_time": Clock().at(minutes=-5)}],
)
def test_a_step_up_that_the_issuer_did_not_do_is_none(claims: dict[str, Any]) -> None:
    world = World(claims=claims)
    world.begin(acr=("phr", "phrh"), anew=True)
    with pytest.raises(StepUpError):
        world.finish()


def test_a_step_up_without_the_time_of_the_login_is_none() -> None:
    world = World(claims={"acr": "phr", "auth_time": ...})
    world.begin(acr=("phr",), anew=True)
    with pytest.raises(StepUpError, match="log in again"):
        world.finish()


@pytest.mark.parametrize("when", [..., Clock().at(hours=-5)])
def test_a_login_that_asks_for_nothing_stronger_may_be_an_old_one(when: object) -> None:
    world = World(claims={"auth_time": when})
    world.begin()
    assert world.finish().subject.sub == f"{URL}#alice"


@pytest.mark.parametrize(("minutes", "taken"), [(0, True), (-5, False)])
def test_a_login_that_had_to_be_new_is(minutes: int, *, taken: bool) -> None:
    world = World(claims={"auth_time": Clock().at(minutes=minutes)})
    world.begin(anew=True)
    assert (world.asked["max_age"], world.asked["prompt"], "acr_values" in world.asked) == ("0", "login", False)
    if taken:
        assert world.finish().subject.sub.endswith("#alice")
    else:
        with pytest.raises(StepUpError):
            world.finish()


# -- several issuers --------------------------------------------------------------------------------------------------


def test_a_login_is_at_the_issuer_that_is_said() -> None:
    clock = Clock()
    other = "https://other.test"
    both = [Registration(issuer(Site(url=url), clock, url), "remit", Secret(SECRET)) for url in (URL, other)]
    made = IssuerLogins(IssuedHumans(both, "https://remit.test", clock), World().transport)
    with pytest.raises(GrantTokenError, match="at this issuer"):
        asyncio.run(made.begin(Login(BACK, "s", "n", "https://evil.test")))
    assert asyncio.run(made.begin(Login(BACK, "s", "n", other))).startswith(other)


def test_a_login_is_the_confidential_client_s_where_there_are_others() -> None:
    clock = Clock()
    at = issuer(clock=clock)
    both = [Registration(at, "remit"), Registration(at, "web", Secret(SECRET))]
    made = IssuerLogins(IssuedHumans(both, "https://remit.test", clock), World().transport)
    assert "client_id=web" in asyncio.run(made.begin(Login(BACK, "s", "n", URL)))


def test_nothing_of_a_login_is_shown_by_accident() -> None:
    world = World()
    world.begin()
    shown = repr(vars(world.logins))
    assert SECRET not in shown
    world.finish()
    assert world.forms[0]["code_verifier"] not in shown
    assert json.dumps(world.asked) not in shown
