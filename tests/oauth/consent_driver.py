"""Interactive flows on a control plane: an issuer that is only pretended, clients, and humans at browsers.

The pretended issuer stands for the port ``Logins``: `Issuer.back` is where a real one would send the browser after a
login. Browsers keep their cookies, follow our pages' own links, and fill in our forms.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx

from remit import jose
from remit.core.audience import Service
from remit.core.policy import in_bounds
from remit.core.principal import JWT_SPIFFE, Human, Workload
from remit.core.task import Subject
from remit.errors import GrantTokenError, UnauthenticatedError
from remit.oauth.clients import Registry
from remit.ports.identity import Login, Registered
from remit.web.routes import Identity
from tests.broker.world import SEARCH, World
from tests.oauth.plane import Agent, Plane, play

ISSUER = "https://idp.test"
ALICE = f"{ISSUER}#alice"
BOB = f"{ISSUER}#bob"
APP = "browser-app"
PLANNER = "spiffe://prod.test/planner"
REDIRECT = "http://127.0.0.1/cb"
PLAIN, STRONG = "urn:test:password", "urn:test:two-factors"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
CIBA = "urn:openid:params:grant-type:ciba"
PURPOSE = "find what was sold in May"


@dataclass
class Issuer:
    """Lets in whoever comes as ``sub``; remembers every login that was begun. It is the ports Logins and Humans."""

    world: World
    sub: str = ALICE
    acr: str = PLAIN
    authorization: str = f"{ISSUER}/auth"
    begun: list[Login] = field(default_factory=list)
    count: itertools.count[int] = field(default_factory=itertools.count)

    async def begin(self, login: Login) -> str:
        self.begun.append(login)
        return f"{self.authorization}?{urlencode({'state': login.state})}"

    async def finish(self, query: str, came: str, login: Login) -> Human:
        answer = dict(parse_qsl(query))
        if answer.get("code") != "of-the-issuer" or login.back != came or login not in self.begun:
            raise GrantTokenError("the issuer did not let the human in", help="log in again")
        return self.human(login.nonce)

    def human(self, nonce: str | None) -> Human:
        now = self.world.now
        subject = Subject(self.sub, self.acr, now, ("pwd",))
        until, digest = now + timedelta(minutes=10), f"login-{next(self.count)}"
        return Human(subject, digest, now, until, "remit", nonce, confidential=True)

    async def id_token(self, token: str, *, nonce: str | None = None) -> Human:
        if token != "of-alice":
            raise GrantTokenError
        return self.human(nonce)

    async def id_jag(self, token: str, client: str) -> Human:
        raise GrantTokenError(f"{token} is no assertion for {client}")

    def back(self, page: httpx.Response) -> str:
        """Return where a login that ``page`` leads to ends: a path of ours."""
        login = followed(page)
        assert login.startswith(self.authorization), login
        state = parse_qs(urlsplit(login).query)["state"][0]
        return f"/oauth/callback?{urlencode({'code': 'of-the-issuer', 'state': state, 'iss': ISSUER})}"


class Mesh:
    """Lets in any workload that says its SPIFFE ID, as an attester would for one that proved it. It is the port."""

    async def assertion(self, token: str, kind: str) -> Workload:
        if not token.startswith("spiffe://"):
            raise UnauthenticatedError(f"{kind} of nobody")
        return Workload(token, "jwt-svid", datetime(2030, 1, 1, tzinfo=UTC))

    async def named(self, wit: str) -> Workload:
        raise UnauthenticatedError(wit)

    async def certified(self, chain: object) -> Workload:
        raise UnauthenticatedError(str(chain))

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        raise UnauthenticatedError(f"{wit}{wpt}{target}{token}")


def svid(name: str = PLANNER) -> dict[str, str | None]:
    """Return what a workload authenticates with."""
    return {"client_id": None, "client_assertion": name, "client_assertion_type": JWT_SPIFFE}


SET_UP = (Registered(APP, "ConsentPage App", (REDIRECT, "https://app.test/cb")), Registered("tv", "TV", ()))


def clients() -> Registry:
    """Return the clients that an operator set up."""
    return Registry(SET_UP)


def identity(issuer: Issuer, registry: Registry | None = None) -> Identity:
    """Return who is believed: the humans of ``issuer``."""
    known = registry or clients()
    return Identity(humans=issuer, logins=issuer, workloads=Mesh(), issuers={ISSUER: "Example"}, clients=known)


def followed(page: httpx.Response) -> str:
    """Return where a page that leads elsewhere leads."""
    found = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


class _Form(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.buttons: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "input":
            self.fields[told["name"]] = told.get("value", "")
        if tag == "button" and "value" in told:
            self.buttons.append(told["value"])


def form_of(page: httpx.Response) -> dict[str, str]:
    """Return the fields of the form on a page."""
    return _Form(page.text).fields


def browser(made: Plane) -> httpx.AsyncClient:
    """Return a browser of one's own, that the plane closes."""
    client = httpx.AsyncClient(base_url=made.base)
    made.clients.append(client)
    return client


async def decide(
    visitor: httpx.AsyncClient, issuer: Issuer, page: httpx.Response, decision: str = "approve"
) -> httpx.Response:
    """Press a button of a page, log in if it leads to a login, press it again there, and return the last answer."""
    assert page.status_code == 200, page.text
    sent = await press(visitor, page, decision)
    assert sent.status_code == 200, sent.text
    if not followed(sent).startswith(issuer.authorization):
        return sent
    last = await visitor.get(issuer.back(sent))
    return await press(visitor, last, decision) if form_of(last) else last


async def press(
    visitor: httpx.AsyncClient, page: httpx.Response, decision: str = "approve", **more: str
) -> httpx.Response:
    """Press a button of a page."""
    return await visitor.post("/oauth/consent", data={**form_of(page), "decision": decision, **more})


@dataclass
class App:
    """A client with a key, a verifier, and what it asks for."""

    made: Plane
    issuer: Issuer
    agent: Agent = field(default_factory=Agent)
    client_id: str = APP
    redirect: str = "http://127.0.0.1:8123/cb"
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def browser_request(self, **more: str | None) -> dict[str, str]:
        """Return an authorization request; None removes a parameter."""
        whole: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect,
            "state": "s-t-a-t-e",
            "code_challenge": jose.digest(self.verifier),
            "code_challenge_method": "S256",
            "purpose": PURPOSE,
            "authorization_details": json.dumps([SEARCH]),
            **more,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def polled_request(self, **more: str | None) -> dict[str, str]:
        """Return a request without a browser: of a device, or from afar."""
        gone = dict.fromkeys(("response_type", "redirect_uri", "state", "code_challenge", "code_challenge_method"))
        return self.browser_request(**gone, **more)

    async def afar(self, **more: str | None) -> httpx.Response:
        """Ask a human from afar, as a workload; Alice unless told otherwise."""
        asked = self.polled_request(**{"login_hint": ALICE, **svid(), **more})
        return await self.made.web.post("/oauth/bc-authorize", data=asked)

    async def code(self, visitor: httpx.AsyncClient | None = None, **more: str | None) -> str:
        """Have the human approve in a browser; return the code that comes back."""
        visitor = visitor or browser(self.made)
        page = await visitor.get("/oauth/authorize", params=self.browser_request(**more))
        last = await decide(visitor, self.issuer, page)
        return answer_of(last)["code"]

    def proof(self, path: str, agent: Agent | None = None) -> str:
        """Return a proof without a token for a path."""
        url = self.made.base + path
        return (agent or self.agent).proof("POST", url, self.made.world.now, self.made.verifier.nonce(), None)

    async def token(self, agent: Agent | None = None, /, **form: str | None) -> httpx.Response:
        """Call the token endpoint."""
        given = {"client_id": self.client_id, **form}
        data = {name: value for name, value in given.items() if value is not None}
        return await self.made.web.post("/oauth/token", data=data, headers={"dpop": self.proof("/oauth/token", agent)})

    async def redeem(self, code: str, agent: Agent | None = None, /, **more: str | None) -> httpx.Response:
        """Redeem a code."""
        return await self.token(agent, **{**self.redeeming(code), **more})

    def redeeming(self, code: str) -> dict[str, str | None]:
        """Return the form that redeems a code."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect}
        return {**form, "code_verifier": self.verifier}


def answer_of(sent: httpx.Response) -> dict[str, str]:
    """Return the parameters of an authorization response."""
    return dict(parse_qsl(urlsplit(sent.headers.get("location") or followed(sent)).query))


async def authorization_page(app: App, **more: str | None) -> httpx.Response:
    """Come to the authorization endpoint with a request."""
    return await browser(app.made).get("/oauth/authorize", params=app.browser_request(**more))


async def pushed(app: App, signer: Agent | None = None, /, **more: str | None) -> httpx.Response:
    """Push a request."""
    headers = {"dpop": app.proof("/oauth/par", signer)} if signer else {}
    return await app.made.web.post("/oauth/par", data=app.browser_request(**more), headers=headers)


Scene = Callable[[App], Awaitable[None]]


def scene(
    directory: Path,
    played: Scene,
    *,
    world: World | None = None,
    issuer: Issuer | None = None,
    gateway: str | None = None,
    registry: Registry | None = None,
    services: Mapping[str, Service] | None = None,
    **more: Any,
) -> None:
    """Run a scene with an app on a control plane whose humans are known; ``more`` is said of `Identity`."""
    world = world or World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds)
    found = issuer or Issuer(world)

    async def whole(made: Plane) -> None:
        await played(App(made, found))

    play(directory, whole, world, replace(identity(found, registry), **more), gateway, services)
