"""``/oauth``: the token endpoint (RFC 6749 §3.2), revocation (RFC 7009), introspection (RFC 7662).

The token endpoint reads the form, authenticates the client, and leaves the rest to the handler of the grant type.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.control import render
from remit.core.lineage import GrantView
from remit.core.principal import Claims, Holder, Principal, Right
from remit.errors import (
    GrantEndedError,
    InvalidRequestError,
    NotFoundError,
    RemitError,
    UnauthenticatedError,
    UnsupportedGrantError,
)
from remit.jose import token as tokens
from remit.oauth import asked
from remit.oauth.clients import FIELDS, Client, Clients
from remit.oauth.minting import ACCESS_TOKEN
from remit.ports.broker import BrokerPort
from remit.web import wire
from remit.web.authentication import shown
from remit.web.verifier import Verifier

_ALWAYS = FIELDS | {"grant_type"}
_HINTED = frozenset({"token", "token_type_hint"})

Form = Mapping[str, str]
Handler = Callable[[Request, Form, Client], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class GrantType:
    """One way to a token: the form fields it takes beside those of every way, and what answers.

    ``subject`` finds who acts where that takes more than the client: the holder of a token that is exchanged.
    """

    fields: frozenset[str]
    handler: Handler
    subject: Callable[[Request, Client], Awaitable[Principal | None]] | None = None


class TokenEndpoint:
    """The token endpoint, with a handler for each of ``grant_types``."""

    def __init__(self, clients: Clients, grant_types: Mapping[str, GrantType]) -> None:
        self._clients, self._grant_types = clients, grant_types
        self._known = _ALWAYS.union(*(one.fields for one in grant_types.values()))

    async def authenticate(self, request: Request) -> Client:
        """Return the client of a token request, and who acts."""
        form = await wire.form(request, self._known, asked.TARGETS)
        grant_type = self._grant_types.get(wire.text(form, "grant_type"))
        if grant_type is None:
            raise UnsupportedGrantError
        client = await self._clients.authenticate(request, wire.meant(form, _ALWAYS | grant_type.fields))
        if grant_type.subject is None:
            return client
        return replace(client, principal=await grant_type.subject(request, client))

    async def token(self, request: Request, client: Client) -> Response:
        """Answer a token request by its grant type."""
        return await self._grant_types[client.form["grant_type"]].handler(request, client.form, client)


class OAuth:
    """What is done with tokens that there are."""

    def __init__(self, broker: BrokerPort, verifier: Verifier, clients: Clients) -> None:
        self._broker, self._verifier, self._clients = broker, verifier, clients

    # -- revoke (RFC 7009) --------------------------------------------------------------------------------------

    async def revoker(self, request: Request) -> Client:
        """Return who revokes: the principal of the request, else the client."""
        form = await wire.form(request, _HINTED | FIELDS)
        wire.text(form, "token")
        principal = await shown(request)
        if principal is None:
            return await self._clients.authenticate(request, form)
        wire.only(form, _HINTED)
        return Client(principal=principal, form=form)

    async def revoke(self, _: Request, client: Client) -> Response:
        """End the grant of a token and all below it; what is not the caller's business changes nothing.

        Whoever holds a token may end what it stands for, without a proof of its key: a token in the wrong hands
        should end. So a client of a browser flow revokes as RFC 7009 has it. A proof reaches further: everything in
        the caller's own subtree, by a token that has expired too.
        """
        token, principal = client.form["token"], client.principal
        if principal is not None and Right.ACT in principal.rights:
            return await self._end(principal, await self._own(principal, token))
        named = await self._given(token, client)
        return await self._end(named, None if named is None else named.grant)

    async def _end(self, caller: Principal | None, grant: str | None) -> Response:
        if caller is None or grant is None:
            return wire.answer({})
        return wire.answer(render.report(await self._broker.revoke(caller, grant)))

    async def _own(self, caller: Principal, token: str) -> str | None:
        """Return the grant of an access or refresh token of the caller's own subtree."""
        family = await self._broker.refresh_token(jose.digest(token))
        if family is not None:
            return family.grant if await self._seen(caller, family.grant) is not None else None
        claims = await self._claims(caller, token)
        return None if claims is None else claims.grant

    async def _given(self, token: str, client: Client) -> Holder | None:
        """Return the holder that a token stands for, if it was given to this client and has not expired."""
        family = await self._broker.refresh_token(jose.digest(token))
        try:
            view = await self._broker.find(self._living(token).grant if family is None else family.grant)
        except (NotFoundError, UnauthenticatedError):
            return None
        given_to, attested = view.grant.agent if family is None else family.client, view.grant.attested
        open_to_all = family is None and not attested
        return view.holder if open_to_all or _is(client, given_to, attested=attested) else None

    def _living(self, token: str) -> Claims:
        """Return the claims of a token that has not expired, whomever it is for."""
        claims = self._verifier.signed(token)
        tokens.check_time(claims, self._verifier.now())
        return claims

    # -- introspect (RFC 7662) ----------------------------------------------------------------------------------

    async def introspect(self, request: Request, caller: Principal) -> Response:
        """Tell the claims of a live token of the caller's own subtree; of all else, that it is not active.

        Whether a foreign grant lives is not even looked up, so that the answer takes as long as for an unknown one.
        """
        form = await wire.form(request, _HINTED)
        token = wire.text(form, "token")
        try:
            claims = await self._claims(caller, token)
            if claims is None or claims.expires_at <= self._verifier.now():
                return wire.answer({"active": False})
            await self._verifier.living(claims)
        except RemitError:
            return wire.answer({"active": False})
        return wire.answer({"active": True, "token_type": "DPoP" if claims.x5t is None else "Bearer", **claims.all})

    # -- inside -------------------------------------------------------------------------------------------------

    async def _claims(self, caller: Principal, token: str) -> Claims | None:
        """Return the claims of an access token of the caller's own subtree, expired or not."""
        try:
            claims = self._verifier.signed(token)
        except UnauthenticatedError:
            return None
        view = await self._seen(caller, claims.grant)
        return claims if view is not None and view.task == claims.task else None

    async def _seen(self, caller: Principal, grant: str) -> GrantView | None:
        """Return a grant that is within the caller's own."""
        try:
            return await self._broker.find(grant, caller)
        except (NotFoundError, GrantEndedError):
            return None


def _is(client: Client, given_to: str, *, attested: bool) -> bool:
    """Whether a token was given to this client: the name of a workload that was attested has to be proven again."""
    return client.id == given_to and (client.workload is not None or not attested)


def check_requested(form: Form) -> None:
    """Raise InvalidRequestError unless an access token is what is requested (RFC 8693 §2.1)."""
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise InvalidRequestError("`requested_token_type` must be that of an access token")
