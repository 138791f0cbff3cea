"""An issuer as its clients see it: just enough of one to be told what to answer, with a human who logs in at once."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx

URL = "https://login.test"


def jwt(claims: Mapping[str, object]) -> str:
    """Return a JWT that nobody signed: what a client reads of it needs no signature."""
    parts = (json.dumps({"alg": "none"}).encode(), json.dumps(dict(claims)).encode(), b"-")
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@dataclass
class FakeIssuer:
    """Answers the requests of a native app, with what a test puts over the usual."""

    at: int = 1_900_000_000  # its clock, in seconds
    metadata: dict[str, object] = field(default_factory=dict)
    claims: dict[str, object] = field(default_factory=dict)
    answer: dict[str, str] = field(default_factory=dict)  # what the browser brings back, over the usual
    token: dict[str, object] = field(default_factory=dict)  # what the token endpoint answers, over the usual
    device: dict[str, object] = field(default_factory=dict)  # what the device endpoint answers, over the usual
    polls: list[str] = field(default_factory=list)  # errors of the device flow, before the tokens
    asked: dict[str, str] = field(default_factory=dict)  # the last authorization request
    forms: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    codes: int = 0

    @property
    def transport(self) -> httpx.MockTransport:
        """What a client speaks to."""
        return httpx.MockTransport(self._answered)

    def visit(self, url: str) -> None:
        """Log in as a human with a browser, and be sent back."""
        self.asked = dict(parse_qsl(urlsplit(url).query))
        told = {"code": "c-1", "state": self.asked["state"], "iss": URL, **self.answer}
        with httpx.Client(trust_env=False) as browser:
            back = browser.get(f"{self.asked['redirect_uri']}?{urlencode({k: v for k, v in told.items() if v})}")
            assert back.status_code == httpx.codes.OK

    def _answered(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/.well-known/openid-configuration":
            return httpx.Response(200, json={**self._described(), **self.metadata})
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.forms.append((path, form))
        match path:
            case "/device":
                told: dict[str, Any] = {"device_code": "d-1", "user_code": "BCDF", "verification_uri": f"{URL}/enter"}
                return httpx.Response(200, json={**told, "expires_in": 60, "interval": 7, **self.device})
            case "/token":
                return self._tokens(form)
        return httpx.Response(200)

    def _tokens(self, form: Mapping[str, str]) -> httpx.Response:
        if form["grant_type"].endswith("device_code") and self.polls:
            return httpx.Response(400, json={"error": self.polls.pop(0)})
        if "error" in self.token:
            return httpx.Response(400, json=self.token)
        if "code_verifier" in form:
            digest = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            assert digest == self.asked["code_challenge"]
        nonce = {"nonce": self.asked["nonce"]} if form["grant_type"] == "authorization_code" else {}
        claims = {
            "iss": URL,
            "aud": "remit",
            "sub": "alice",
            "iat": self.at,
            "exp": 2_000_000_000,
            **nonce,
            **self.claims,
        }
        self.codes += 1
        told = {
            "access_token": "a",
            "token_type": "Bearer",
            "id_token": jwt(claims),
            "refresh_token": f"r-{self.codes}",
        }
        return httpx.Response(200, json={name: value for name, value in {**told, **self.token}.items() if value})

    def _described(self) -> dict[str, object]:
        names = {"authorization_endpoint": "auth", "token_endpoint": "token", "device_authorization_endpoint": "device"}
        ends = {"revocation_endpoint": "revoke", "end_session_endpoint": "end"}
        urls = {name: f"{URL}/{path}" for name, path in {**names, **ends}.items()}
        told = {"scopes_supported": ["openid", "groups", "offline_access"]}
        return {"issuer": URL, "authorization_response_iss_parameter_supported": True, **told, **urls}
