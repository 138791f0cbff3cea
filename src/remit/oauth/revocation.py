"""What clients do with tokens that were issued: revocation (RFC 7009) and introspection (RFC 7662)."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.control import render
from remit.core.principal import Claims, GrantView, Holder, Principal, Right, check_given, check_right
from remit.core.refresh import RefreshFamily
from remit.errors import (
    GrantEndedError,
    GrantTokenError,
    NotFoundError,
    RemitError,
    UnauthenticatedError,
    UnsupportedTokenError,
)
from remit.oauth.clients import FIELDS, Clients, OAuthClient
from remit.ports.broker import BrokerPort
from remit.web import wire
from remit.web.authentication import shown
from remit.web.verifier import Verifier

_HINTED = frozenset({"token", "token_type_hint"})
_HOW = "as the client of a service: by `private_key_jwt`, or as a workload; or as a holder, by a token and its key"


class IssuedTokens:
    """What is done with tokens that there are."""

    def __init__(self, broker: BrokerPort, verifier: Verifier, clients: Clients) -> None:
        self._broker, self._verifier, self._clients = broker, verifier, clients

    async def revoker(self, request: Request) -> OAuthClient:
        """Return who revokes: the principal of the request, else the client."""
        form = await wire.form(request, _HINTED | FIELDS)
        wire.text(form, "token")
        principal = await shown(request)
        if principal is None:
            return await self._clients.authenticate(request, form)
        wire.only(form, _HINTED)
        return OAuthClient(principal=principal, form=form)

    async def revoke(self, _: Request, client: OAuthClient) -> Response:
        """End the grant of a token and all below it; what is not the caller's business changes nothing.

        Whoever holds a token may end what it stands for, without a proof of its key: a token in the wrong hands
        should end. So a client of a browser flow revokes as RFC 7009 has it; not by a token for a service elsewhere,
        which is shown there. A proof reaches further: all of the caller's own subtree, by a token that has expired too.
        """
        token, caller, grant = client.form["token"], client.principal, None
        family = await self._broker.refresh_token(jose.digest(token))
        if caller is None or Right.ACT not in caller.rights:
            caller = await self._given(token, family, client)
            grant = None if caller is None else caller.grant
        elif family is None:
            claims = await self._claims(caller, token)
            grant = None if claims is None else claims.grant
        elif await self._seen(caller, family.grant) is not None:
            grant = family.grant
        if caller is None or grant is None:
            return wire.answer({})
        return wire.answer(render.report(await self._broker.revoke(caller, grant)))

    async def _given(self, token: str, family: RefreshFamily | None, client: OAuthClient) -> Holder | None:
        """Return the holder that a token stands for, if it was given to this client and has not expired."""
        shown = False
        try:
            if family is None:
                view = await self._verifier.tokens.token_grant(token)
                shown = self._verifier.audiences.service(self._verifier.signed(token).audience) is not None
            else:
                view = await self._broker.find(family.grant)
        except (NotFoundError, UnauthenticatedError):
            return None
        attested = view.grant.attested
        if shown and not attested:  # whoever serves there has it too, and is to end nothing of its clients
            raise UnsupportedTokenError
        if family is None and not attested:  # open to all
            return view.holder
        given_to, keyed = (view.grant.agent, True) if family is None else (family.client, family.keyed or attested)
        try:
            check_given(given_to, client.id, keyed=keyed, proven=client.proven)
        except (GrantTokenError, UnauthenticatedError):
            return None
        return view.holder

    async def introspector(self, request: Request) -> OAuthClient:
        """Return who introspects: the principal of the request, else a client that has proven who it is."""
        form = await wire.form(request, _HINTED | FIELDS)
        wire.text(form, "token")
        principal = await shown(request)
        if principal is not None:
            wire.only(form, _HINTED)
            check_right(principal, Right.ACT)
            return OAuthClient(principal=principal, form=form)
        client = await self._clients.authenticate(request, form)
        if not client.proven:
            raise UnauthenticatedError("whoever introspects proves who it is", help=_HOW)
        return replace(client, principal=None)

    async def introspect(self, _: Request, client: OAuthClient) -> Response:
        """Tell the claims of a live token: of a holder's own subtree, or for the service that asks. Else: not active.

        Whether a foreign grant lives is not even looked up, so that the answer takes as long as for an unknown one.
        """
        token, caller = client.form["token"], client.principal
        try:
            claims = self._meant(client, token) if caller is None else await self._claims(caller, token)
            if claims is None or claims.expires_at <= self._verifier.now():
                return wire.answer({"active": False})
            await self._verifier.tokens.present(token)
        except RemitError:
            return wire.answer({"active": False})
        return wire.answer({"active": True, "token_type": "Bearer" if claims.jkt is None else "DPoP", **claims.all})

    def _meant(self, client: OAuthClient, token: str) -> Claims | None:
        """Return the claims of a token that is for a service which this client serves."""
        claims = self._verifier.signed(token)
        service = self._verifier.audiences.service(claims.audience)
        return claims if service is not None and service.is_served_by(client.id) else None

    async def _claims(self, caller: Principal, token: str) -> Claims | None:
        try:
            claims = self._verifier.signed(token)
        except UnauthenticatedError:
            return None
        view = await self._seen(caller, claims.grant)
        return claims if view is not None and view.task == claims.task else None

    async def _seen(self, caller: Principal, grant: str) -> GrantView | None:
        try:
            return await self._broker.find(grant, caller)
        except (NotFoundError, GrantEndedError):
            return None
