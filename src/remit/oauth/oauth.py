"""``/oauth``: the token endpoint (RFC 6749 §3.2), revocation (RFC 7009), introspection (RFC 7662).

The token endpoint reads the form, finds out who asks, and leaves the rest to the handler of the grant type.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from remit import jose
from remit.broker import Broker
from remit.control import render
from remit.core.principal import Claims, Holder, Principal
from remit.core.task import Task
from remit.errors import (
    InvalidRequestError,
    NotFoundError,
    RemitError,
    UnauthenticatedError,
    UnsupportedGrantError,
)
from remit.jose import token as tokens
from remit.oauth import asked, clients
from remit.oauth.clients import Client, Clients
from remit.oauth.minting import ACCESS_TOKEN
from remit.web import wire
from remit.web.authentication import SocketAuth, authority_of
from remit.web.verifier import Verifier

_ALWAYS = clients.FIELDS | {"grant_type"}
_HINTED = frozenset({"token", "token_type_hint"})

Form = Mapping[str, str]
Handler = Callable[[Request, Form, Client], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class GrantType:
    """One way to a token: the form fields it takes beside those of every way, and what answers."""

    fields: frozenset[str]
    handler: Handler


class Endpoint:
    """The token endpoint."""

    def __init__(self, who: Clients, ways: Mapping[str, GrantType], verifier: Verifier) -> None:
        """Answer the grant types of ``ways``; ``verifier`` sees to it that refused clients are in the audit."""
        self._who, self._ways, self._verifier = who, ways, verifier
        self._known = _ALWAYS.union(*(way.fields for way in ways.values()))

    async def token(self, request: Request) -> Response:
        """Answer a token request by its grant type."""
        form = await wire.form(request, self._known, asked.TARGETS)
        way = self._ways.get(wire.text(form, "grant_type"))
        if way is None:
            raise UnsupportedGrantError
        form = wire.meant(form, _ALWAYS | way.fields)
        client = await self._verifier.believed(self._who.authenticate(request, form))
        return await way.handler(request, form, client)


class OAuth:
    """What is done with tokens that there are."""

    def __init__(self, broker: Broker, verifier: Verifier, who: Clients) -> None:
        """Serve ``broker``; tokens are read by ``verifier``, clients without one are authenticated by ``who``."""
        self._broker, self._verifier, self._who = broker, verifier, who

    # -- revoke (RFC 7009) --------------------------------------------------------------------------------------

    async def revoke(self, request: Request) -> Response:
        """End the grant of a token and all below it; what is not the caller's business changes nothing.

        Whoever holds a token may end what it stands for, without a proof of its key: a token in the wrong hands
        should end. So a client of a browser flow revokes as RFC 7009 has it. A proof reaches further: everything in
        the caller's own subtree, by a token that has expired too.
        """
        form = await wire.form(request, _HINTED | clients.FIELDS)
        token = wire.text(form, "token")
        await self._back(token)
        if isinstance(authority_of(request), SocketAuth) or request.headers.get("authorization"):
            wire.only(form, _HINTED)
            caller = await authority_of(request).identify(request)
            return await self._end(caller, self._own(caller, token))
        named = self._given(token, await self._verifier.believed(self._who.authenticate(request, form)))
        return await self._end(named, None if named is None else named.grant)

    async def _end(self, caller: Principal | None, grant: str | None) -> Response:
        if caller is None or grant is None:
            return wire.answer({})
        return wire.answer(render.report(await self._broker.revoke(caller, grant)))

    async def _back(self, token: str) -> None:
        """Wait while the task of a token is being read again: one that there is must not pass for one that is over."""
        chain = self._broker.refresh_token(jose.digest(token))
        with suppress(UnauthenticatedError):
            await self._broker.back(self._verifier.signed(token).grant if chain is None else chain.grant)

    def _own(self, caller: Principal, token: str) -> str | None:
        """Return the grant of an access or refresh token of the caller's own subtree."""
        chain = self._broker.refresh_token(jose.digest(token))
        if chain is None:
            claims = self._claims(caller, token)
            return None if claims is None else claims.grant
        task = self._task(caller, chain.grant)
        return None if task is None else chain.grant

    def _given(self, token: str, client: Client) -> Holder | None:
        """Return the holder that a token stands for, if it was given to this client and has not expired."""
        chain = self._broker.refresh_token(jose.digest(token))
        try:
            grant_id = self._living(token).grant if chain is None else chain.grant
            task = self._broker.task_of(grant_id)
        except (NotFoundError, UnauthenticatedError):
            return None
        grant = task.grant(grant_id)
        given_to = grant.agent if chain is None else chain.client
        open_to_all = chain is None and not grant.attested
        return Holder(task.id, grant_id) if open_to_all or _is(client, given_to, attested=grant.attested) else None

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
        claims = self._claims(caller, wire.text(form, "token"))
        try:
            if claims is None or claims.expires_at <= self._verifier.now():
                return wire.answer({"active": False})
            self._verifier.living(claims)
        except RemitError:
            return wire.answer({"active": False})
        return wire.answer({"active": True, "token_type": "DPoP" if claims.x5t is None else "Bearer", **claims.all})

    # -- inside -------------------------------------------------------------------------------------------------

    def _claims(self, caller: Principal, token: str) -> Claims | None:
        """Return the claims of an access token of the caller's own subtree, expired or not."""
        try:
            claims = self._verifier.signed(token)
        except UnauthenticatedError:
            return None
        task = self._task(caller, claims.grant)
        return claims if task is not None and task.id == claims.task else None

    def _task(self, caller: Principal, grant: str) -> Task | None:
        """Return the task of a grant that is within the caller's own."""
        try:
            task = self._broker.task(caller, self._broker.task_of(grant).id)
        except NotFoundError:
            return None
        root = caller.grant if isinstance(caller, Holder) else task.head.root
        return task if task.within(grant, root) else None


def _is(client: Client, given_to: str, *, attested: bool) -> bool:
    """Whether a token was given to this client: the name of a workload that was attested has to be proven again."""
    return client.id == given_to and (client.workload is not None or not attested)


def check_requested(form: Form) -> None:
    """Raise InvalidRequestError unless an access token is what is requested (RFC 8693 §2.1)."""
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise InvalidRequestError("`requested_token_type` must be that of an access token")
