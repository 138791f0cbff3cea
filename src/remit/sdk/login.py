"""Log in at an OpenID issuer as a native app: by browser (RFC 8252) or by device code (RFC 8628); refresh; log out.

- Authorization code with PKCE (S256), a state, a nonce, and a redirect to a loopback port that is open for one answer.
- Tokens come straight from the token endpoint over TLS, which stands in for a look at their signature here (OpenID
  Connect Core §3.1.3.7, 6.); the broker verifies it.
- Blocking: this is for people at a terminal.
- Written here, and not by authlib as the broker's own logins (``identity/humans.py``), because the client library needs
  httpx and cryptography alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from remit.errors import (
    DeniedError,
    GrantTokenError,
    InvalidRequestError,
    LapsedError,
    NotFoundError,
    PendingError,
    RemitError,
    SlowDownError,
    UnavailableError,
    UpstreamError,
)
from remit.sdk.dpop import base64url

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
OFFLINE = "offline_access"
SCOPES = ("openid",)
PATIENCE = 300.0  # seconds for a human in a browser
INTERVAL = 5.0  # seconds between polls, RFC 8628 §3.2
AWAY = "try again; where it keeps on, `remit doctor` looks at the issuers that are configured"
AGAIN = "log in again with `remit login`"

HOST = "127.0.0.1"  # a literal: `localhost` may be somebody else's, RFC 8252 §8.3
DONE = b"<!doctype html><title>remit</title><p>The login is back at your terminal. You may close this page.\n"
STRANGE = b"<!doctype html><title>remit</title><p>This is not the answer that is waited for.\n"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}

Say = Callable[[str, str], None]  # what a human has to visit, and the code to enter there or ""
Pause = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class ClientRegistration:
    """An issuer, and what it knows us as."""

    url: str
    client_id: str
    scopes: tuple[str, ...] = SCOPES


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What an issuer gave: an ID token with its claims, and a refresh token if it gives those."""

    id_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    claims: Mapping[str, Any]


def chosen_client(known: Sequence[Mapping[str, Any]], issuer: str | None, client_id: str | None) -> Mapping[str, Any]:
    """Return the client that is meant, of those that the broker knows; one that is named in full it need not know."""
    named = {name: value for name, value in (("issuer", issuer), ("client_id", client_id)) if value is not None}
    found = [one for one in known if named.items() <= one.items()]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"`{one['client_id']}` at {one['issuer']}" for one in found or known)
    if found:
        apart = {"--issuer": "issuer", "--client-id": "client_id"}
        options = " and ".join(option for option, name in apart.items() if len({one[name] for one in found}) > 1)
        raise InvalidRequestError(f"the broker knows several clients: {names}", help=f"choose with {options}")
    if None not in {issuer, client_id}:
        return named
    raise NotFoundError(
        f"the broker knows no such client for this{f': it knows {names}' if names else ''}",
        help="configure [[humans]], or name both --issuer and --client-id",
    )


class Loopback(HTTPServer):
    """A port that is open for one authorization response (RFC 8252 §7.3, §8.3): that to ``state`` alone."""

    timeout = 0.2  # seconds between looks whether nobody waits any more

    def __init__(self, state: str) -> None:
        self.state = state
        self.answer: dict[str, str] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        super().__init__((HOST, 0), _Handler)

    @property
    def redirect_uri(self) -> str:
        """Where the issuer sends the browser back to."""
        return f"http://{HOST}:{self.server_port}/callback"

    def wait(self, seconds: float) -> dict[str, str]:
        """Return the parameters of the answer, or raise LapsedError."""
        self._thread.join(seconds)
        if self.answer is None:
            raise LapsedError("nobody logged in in time", help="try again; without a browser here, with --device")
        return self.answer

    def _serve(self) -> None:
        while self.answer is None and not self._closed:
            self.handle_request()

    def offer(self, path: str) -> bool:
        """Take the path of a request if it is the answer."""
        parts = urlsplit(path)
        try:
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, max_num_fields=32)
        except ValueError:
            return False
        fields = dict(pairs)
        fits = parts.path == "/callback" and len(fields) == len(pairs)
        if not fits or not hmac.compare_digest(fields.get("state", "").encode(), self.state.encode()):
            return False
        self.answer = fields
        return True

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a connection that broke be the problem of whoever broke it."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = 5.0  # seconds for a request that was begun
    server: Loopback

    def do_GET(self) -> None:
        taken = self.server.offer(self.path)
        page = DONE if taken else STRANGE
        self.send_response(200 if taken else 400)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def version_string(self) -> str:
        return "remit"  # and nothing of how

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass  # a path carries a code


class OpenIDClient:
    """One issuer, spoken to as one public client."""

    def __init__(self, issuer: ClientRegistration, transport: httpx.BaseTransport | None = None) -> None:
        """Read what the issuer says of itself (OpenID Connect Discovery §4); it must say so of this very URL."""
        self.issuer = issuer
        self._http = httpx.Client(timeout=30.0, transport=transport, headers={"accept": "application/json"})
        check_url(issuer.url)
        self._metadata = _document(self._sent("GET", f"{issuer.url.rstrip('/')}/.well-known/openid-configuration"))
        named = self._metadata.get("issuer")
        if named != issuer.url:
            raise UpstreamError(
                f"the issuer describes itself under another name: `{str(named)[:200]}`",
                help="configure `humans.issuer` exactly as it writes itself, last slash and all",
            )

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def browser(self, visit: Callable[[str], None]) -> TokenSet:
        """Let ``visit`` show a human the issuer's page, and take the answer at a loopback port."""
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        scopes, endpoint = self._scopes(), self._endpoint("authorization_endpoint")
        with Loopback(secrets.token_urlsafe(32)) as loopback:
            query = {
                "response_type": "code",
                "client_id": self.issuer.client_id,
                "redirect_uri": loopback.redirect_uri,
                "scope": " ".join(scopes),
                "state": loopback.state,
                "nonce": nonce,
                "code_challenge": base64url(hashlib.sha256(verifier.encode()).digest()),
                "code_challenge_method": "S256",
                **({"prompt": "consent"} if OFFLINE in scopes else {}),  # OpenID Connect Core §11
            }
            visit(_with_query(endpoint, query))
            answer = loopback.wait(PATIENCE)
        named = answer.get("iss")  # RFC 9207 §2.4
        required = self._metadata.get("authorization_response_iss_parameter_supported") is True
        if (named is None and required) or (named is not None and named != self.issuer.url):
            raise DeniedError("the answer is not from the issuer that was asked")
        if "code" not in answer:
            raise _refused(answer.get("error", ""), answer.get("error_description", ""))
        code = {"code": answer["code"], "redirect_uri": loopback.redirect_uri, "code_verifier": verifier}
        return self._read(self._posted("token_endpoint", grant_type="authorization_code", **code), nonce)

    def device(self, say: Say, pause: Pause = time.sleep) -> TokenSet:
        """Let ``say`` tell a human where to enter which code, then ask until they have (RFC 8628 §3.4, §3.5)."""
        answer = self._posted("device_authorization_endpoint", scope=" ".join(self._scopes()))
        code, interval = _text(answer, "device_code"), _seconds(answer, "interval", INTERVAL)
        left = _seconds(answer, "expires_in", PATIENCE)
        typed, place = _text(answer, "user_code"), _text(answer, "verification_uri")
        say(str(answer.get("verification_uri_complete") or place), typed)
        while left > 0:
            pause(interval)
            left -= interval
            try:
                given = self._posted("token_endpoint", grant_type=DEVICE_CODE, device_code=code)
            except PendingError:
                continue
            except SlowDownError:
                interval += INTERVAL
                continue
            return self._read(given, None)
        raise LapsedError("the code was not entered in time", help=AGAIN)

    def refresh(self, refresh_token: str, claims: Mapping[str, Any]) -> TokenSet:
        """Return a new ID token of the same human, with the refresh token that is good from now on (Core §12)."""
        given = self._posted("token_endpoint", grant_type="refresh_token", refresh_token=refresh_token)
        if not isinstance(given.get("id_token"), str):
            raise GrantTokenError("the issuer gives no new ID token for this login", help=AGAIN)
        fresh = self._read({"refresh_token": refresh_token, **given}, None)
        if fresh.claims.get("sub") != claims.get("sub"):
            raise GrantTokenError("the issuer answered with somebody else's ID token", help=AGAIN)
        return fresh

    def log_out(self, tokens: TokenSet) -> str | None:
        """Revoke the refresh token (RFC 7009); return the page that ends the session at the issuer, if it has one."""
        if tokens.refresh_token and self._metadata.get("revocation_endpoint"):
            form = {"token": tokens.refresh_token, "token_type_hint": "refresh_token"}
            self._post("revocation_endpoint", **form)
        if not self._metadata.get("end_session_endpoint"):
            return None
        query = {"client_id": self.issuer.client_id, "logout_hint": str(tokens.claims.get("sub"))}
        return _with_query(self._endpoint("end_session_endpoint"), query)

    def _scopes(self) -> tuple[str, ...]:
        """Return what to ask for: a refresh token too, of an issuer that says that it knows how (Discovery §3)."""
        supported = self._metadata.get("scopes_supported")
        offline = [OFFLINE] if isinstance(supported, list) and OFFLINE in supported else []
        return tuple(dict.fromkeys([*self.issuer.scopes, *offline]))

    def _endpoint(self, name: str) -> str:
        found = self._metadata.get(name)
        if not isinstance(found, str):
            other = "log in without --device: by a browser on this machine" if name.startswith("device_") else None
            raise UnavailableError(f"the issuer has no `{name}`", help=other)
        check_url(found)
        return found

    def _posted(self, endpoint: str, **form: str) -> Mapping[str, Any]:
        answer = self._post(endpoint, **form)
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UnavailableError("the issuer cannot answer now", help=AWAY)
        found = _document(answer)
        if not answer.is_success:
            raise _refused(str(found.get("error", "")), str(found.get("error_description", "")))
        return found

    def _post(self, endpoint: str, **form: str) -> httpx.Response:
        return self._sent("POST", self._endpoint(endpoint), {"client_id": self.issuer.client_id, **form})

    def _sent(self, method: str, url: str, form: Mapping[str, str] | None = None) -> httpx.Response:
        try:
            return self._http.request(method, url, data=form)
        except httpx.TransportError as error:
            raise UnavailableError(f"the issuer does not answer: `{self.issuer.url}`", help=AWAY) from error

    def _read(self, given: Mapping[str, Any], nonce: str | None) -> TokenSet:
        token, refresh = _text(given, "id_token"), given.get("refresh_token")
        claims = claims_of(token)
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if claims.get("iss") != self.issuer.url or self.issuer.client_id not in audiences:
            raise GrantTokenError("the ID token is not one of this issuer for us")
        if nonce is not None and claims.get("nonce") != nonce:
            raise GrantTokenError("the ID token belongs to another login")
        return TokenSet(token, refresh if isinstance(refresh, str) else None, claims)


def _refused(error: str, description: str) -> RemitError:
    """Return what an OAuth error of the issuer means to whoever is at the terminal."""
    said = "".join(char for char in (description or error)[:200] if char.isprintable())
    match error:
        case "invalid_grant":
            return GrantTokenError(f"the issuer no longer knows this login: {said}", help=AGAIN)
        case "authorization_pending":
            return PendingError()
        case "slow_down":
            return SlowDownError()
        case "expired_token":
            return LapsedError("the code was not entered in time", help=AGAIN)
    return DeniedError(f"the issuer refused: {said}" if said else "the issuer refused")


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def check_url(url: str) -> None:
    """Raise InvalidRequestError unless a URL is https, or http on this host: a token must not travel in clear."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    with suppress(ValueError):  # a name, and no address
        if parts.scheme == "http" and (host == "localhost" or ipaddress.ip_address(host).is_loopback):
            return
    raise InvalidRequestError("an issuer's URLs must be https")


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a JWT without verifying it: for people to read, and to compare."""
    try:
        part = token.split(".")[1]
        read = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, IndexError):
        read = None
    if not isinstance(read, dict):
        raise UpstreamError("the issuer's ID token is not a JWT")
    return read


def ends_at(claims: Mapping[str, Any]) -> datetime:
    """Return when an ID token ends."""
    exp = claims.get("exp")
    return datetime.fromtimestamp(exp if isinstance(exp, int | float) else 0, UTC)


def _document(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamError("the issuer's answer is not a JSON object")
    return found


def _seconds(document: Mapping[str, Any], name: str, default: float) -> float:
    try:
        return float(document.get(name) or default)  # there are issuers that write numbers as text
    except (TypeError, ValueError):
        raise UpstreamError(f"the issuer's answer has no sensible `{name}`") from None


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or not found:
        raise UpstreamError(f"the issuer's answer has no `{name}`")
    return found
