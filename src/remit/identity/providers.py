"""Authorization servers of upstreams: discovery (RFC 9728, 8414), tokens, revocation (7009), registration (7591).

Its end of ``ports.connections.ProviderPort``, in the process that reaches targets. What comes is bounded, no redirect
is followed, and nothing is asked twice. Who the provider of a resource is, the resource says, and where its endpoints
are, the provider: so each host is dialled at an address that was looked at, and that is public, unless an operator
named that very host.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
import msgspec

from remit.core import fields
from remit.core.connection import AuthorizationServer, ProviderClient, ProviderTokens
from remit.core.secret import Secret
from remit.errors import (
    EngineRefusedError,
    GrantTokenError,
    InvalidRequestError,
    UnavailableError,
    UnsupportedScopeError,
)
from remit.identity.fetch import HttpFetch, Lookup, Transport, look_up, pinned
from remit.jose import challenge
from remit.jose.challenge import Challenge
from remit.ports.connections import ProviderPort

PATIENCE = 10.0  # seconds, for a whole answer
MAX_ANSWER = 65_536  # bytes
MAX_LIFETIME = 315_360_000  # seconds
MAX_LISTED, MAX_TEXT = 100, 200
BAD = 400
PRM = "/.well-known/oauth-protected-resource"
AS = "/.well-known/oauth-authorization-server"
OIDC = "/.well-known/openid-configuration"
# what is said to an MCP server for its refusal's sake: nothing is done by it, and every revision has it
_LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
_EITHER = {"accept": "application/json, text/event-stream"}  # streamable HTTP
_TOKEN = re.compile(r"[\x21-\x7e]{16,16384}")
_CODE = re.compile(r"[a-z_]{1,60}")

Document = Mapping[str, Any]
Hosts = Sequence[str]


class ReachedProviders(ProviderPort):
    """Asks providers over HTTP."""

    def __init__(self, transport: Transport | None = None, lookup: Lookup = look_up) -> None:
        self._transport, self._lookup = transport or HttpFetch(limit=MAX_ANSWER).transport, lookup

    async def discover_provider(
        self, destination: str, issuer: str | None, near: tuple[str, ...], *, messages: bool = False
    ) -> AuthorizationServer:
        """Return a provider that does PKCE by S256, or raise EngineRefusedError."""
        about: Document = {}
        said = Challenge()
        if issuer is None:
            said = await self._challenge(destination, near, messages=messages)
            about = await self._resource(destination, near, said.metadata)
            issuer = next(iter(_texts(about, "authorization_servers")), "")
        found = await self._first(places(_checked(issuer, "the issuer")), near)
        if found is None:
            raise EngineRefusedError(
                f"`{issuer}` does not publish what it is (RFC 8414)",
                help="name its endpoints in the setting `oauth` of the resource",
            )
        if found.get("issuer") != issuer:  # RFC 8414 §3.3, to the letter
            raise EngineRefusedError(f"what `{issuer}` publishes is about another issuer")
        if "S256" not in _texts(found, "code_challenge_methods_supported"):
            raise EngineRefusedError(f"`{issuer}` does not say that it protects codes (PKCE with S256)")
        methods = "token_endpoint_auth_methods_supported"
        return AuthorizationServer(
            issuer,
            _endpoint(found, "authorization_endpoint"),
            _endpoint(found, "token_endpoint"),
            _optional(found, "revocation_endpoint"),
            _optional(found, "registration_endpoint"),
            _texts(found, methods) or ("client_secret_basic",),
            found.get("authorization_response_iss_parameter_supported") is True,
            found.get("client_id_metadata_document_supported") is True,
            about.get("resource"),
            said.scopes or _texts(about, "scopes_supported"),
            near,
        )

    async def _challenge(self, destination: str, near: Hosts, *, messages: bool) -> Challenge:
        """Return what a resource says to whoever comes without a token; nothing where it says none of it."""
        said: Mapping[str, Any] = {"json": _LIST, "headers": _EITHER} if messages else {}
        try:
            answer = await self._ask("POST" if messages else "GET", destination, near, **said)
        except UnavailableError:
            return Challenge()
        refused = answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}
        return challenge.read(answer.headers.get_list("www-authenticate")) if refused else Challenge()

    async def _resource(self, destination: str, near: Hosts, named: str) -> Document:
        """Return what a resource publishes about itself, which must be about it (RFC 9728 §3.3).

        ``named``: where, if it says that itself; otherwise it is at the well-known places.
        """
        parts = urlsplit(destination)
        base = f"{parts.scheme}://{parts.netloc}{PRM}"
        at = (_checked(named, "its resource_metadata", destination),) if named else (base + parts.path, base)
        found = await self._first(dict.fromkeys(at), near)
        if found is None:
            raise EngineRefusedError(
                f"`{destination}` does not say who its provider is (RFC 9728)",
                help="name it: `issuer` of the setting `oauth` of the resource",
            )
        named = str(found.get("resource"))
        within = destination == named or destination.startswith(f"{named.rstrip('/')}/")
        if not within or urlsplit(named).netloc != parts.netloc:
            raise EngineRefusedError(f"what `{destination}` publishes is about another resource")
        return found

    async def _first(self, urls: Sequence[str] | Mapping[str, None], near: Hosts) -> Document | None:
        """Return the first of some documents that is there."""
        for url in urls:
            answer = await self._ask("GET", url, near)
            if answer.status_code == httpx.codes.OK and (found := _object(answer)) is not None:
                return found
        return None

    async def obtain_tokens(
        self, provider: AuthorizationServer, client: ProviderClient, form: Secret
    ) -> ProviderTokens:
        asked = {name: part.decode() for name, part in form.parts().items()}
        answer = await self._post(provider.token_endpoint, provider, client, asked)
        found = _object(answer) or {}
        if answer.status_code >= BAD or "error" in found:  # some say no with a 200
            raise _refusal(found, scope="scope" in asked)
        token, kind = found.get("access_token"), found.get("token_type", "bearer")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token) or str(kind).lower() != "bearer":
            raise EngineRefusedError("the provider gave no bearer token that can be kept apart from other text")
        refresh, scope = found.get("refresh_token"), found.get("scope")
        return ProviderTokens(
            Secret(token),
            Secret(refresh) if isinstance(refresh, str) and refresh else None,
            _lifetime(found.get("expires_in")),
            scope[:4_096] if isinstance(scope, str) else None,
        )

    async def revoke_token(self, provider: AuthorizationServer, client: ProviderClient, token: Secret) -> None:
        if provider.revocation_endpoint is None:
            return
        answer = await self._post(provider.revocation_endpoint, provider, client, {"token": token.reveal()})
        if answer.status_code >= BAD:
            raise _refusal(_object(answer) or {})

    async def register_client(self, provider: AuthorizationServer, name: str, redirect_uri: str) -> ProviderClient:
        here = fields.is_loopback(urlsplit(redirect_uri).hostname or "")
        asked = {
            "client_name": name,
            "redirect_uris": [redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "native" if here else "web",
        }
        url = str(provider.registration_endpoint)
        answer = await self._ask("POST", url, provider.near, json=asked)
        found = _object(answer) or {}
        try:
            if answer.status_code >= BAD:
                raise _refusal(found)
            method, secret = found.get("token_endpoint_auth_method", "none"), found.get("client_secret")
            read = msgspec.convert({"id": found.get("client_id"), "method": method}, ProviderClient)
        except msgspec.ValidationError:
            raise EngineRefusedError("the provider's answer to a registration is not one") from None
        return ProviderClient(read.id, read.method, Secret(secret) if isinstance(secret, str) else None)

    async def _post(
        self, url: str, provider: AuthorizationServer, client: ProviderClient, form: Mapping[str, str]
    ) -> httpx.Response:
        """Ask as a client (RFC 6749 §2.3.1)."""
        secret, headers = client.secret, {}
        if client.method == "client_secret_basic" and secret is not None:
            pair = f"{quote_plus(client.id)}:{quote_plus(secret.reveal())}"
            headers = {"authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        else:
            form = {**form, "client_id": client.id}
            form |= {} if client.method == "none" or secret is None else {"client_secret": secret.reveal()}
        return await self._ask("POST", url, provider.near, data=form, headers=headers)

    async def _ask(self, method: str, url: str, near: Hosts, **more: Any) -> httpx.Response:
        """Return an answer that is one; a server that has failed, or is busy, has given none."""
        host = urlsplit(url).netloc
        try:
            async with asyncio.timeout(PATIENCE):
                private = urlsplit(url).hostname in near
                address, headers, extensions = await pinned(httpx.URL(url), self._lookup, private=private)
                headers |= {"accept": "application/json", **more.pop("headers", {})}
                client = httpx.AsyncClient(transport=self._transport(), trust_env=False, timeout=PATIENCE)
                async with client:
                    answer = await client.request(method, address, headers=headers, extensions=extensions, **more)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, UnicodeError) as error:
            raise UnavailableError(f"`{host}` does not answer") from error
        if (
            answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            or answer.status_code == httpx.codes.TOO_MANY_REQUESTS
        ):
            raise UnavailableError(f"`{host}` answered {answer.status_code}")
        return answer


def places(issuer: str) -> Sequence[str]:
    """Return where an issuer may publish what it is, in the order of MCP's authorization: RFC 8414 §3.1, OIDC last."""
    parts = urlsplit(issuer)
    host, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    if not path:
        return host + AS, host + OIDC
    return host + AS + path, host + OIDC + path, host + path + OIDC


def _refusal(found: Document, *, scope: bool = False) -> EngineRefusedError | GrantTokenError | UnsupportedScopeError:
    """Return what an OAuth error means; of its words only the registered name is repeated."""
    code = found.get("error")
    if code == "invalid_grant":
        return GrantTokenError("the provider does not take the code or the refresh token")
    if code == "invalid_scope" and scope:  # that was asked for
        return UnsupportedScopeError("the provider does not give a token for that scope")
    said = f": `{code}`" if isinstance(code, str) and _CODE.fullmatch(code) else ""
    return EngineRefusedError(f"the provider refused{said}")


def _object(answer: httpx.Response) -> Document | None:
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _checked(url: object, what: str, issuer: str = "") -> str:
    try:
        return fields.check_endpoint(url, what, issuer)
    except InvalidRequestError as error:
        raise EngineRefusedError(error.detail) from None


def _endpoint(found: Document, name: str) -> str:
    return _checked(found.get(name), f"its {name}", str(found["issuer"]))


def _optional(found: Document, name: str) -> str | None:
    return _endpoint(found, name) if found.get(name) is not None else None


def _texts(found: Document, name: str) -> tuple[str, ...]:
    """Return a list of short texts; anything else is none."""
    held = found.get(name)
    some = held[:MAX_LISTED] if isinstance(held, list) else ()
    return tuple(one for one in some if isinstance(one, str) and len(one) <= MAX_TEXT)


def _lifetime(seconds: object) -> int | None:
    """Return ``expires_in``, which some write as text; 0, and what is no number, says nothing."""
    text = str(seconds)[:12]
    return min(int(text), MAX_LIFETIME) or None if text.isdecimal() and text.isascii() else None
