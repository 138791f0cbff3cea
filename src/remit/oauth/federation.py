"""Grants on the word of others: an identity assertion of a human (ID-JAG), and a workload for itself.

An identity assertion (draft-ietf-oauth-identity-assertion-authz-grant, RFC 7523) may limit what is opened with it;
a workload that opens a task (RFC 6749 §4.4) acts for nobody but itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from remit.core import scope as scopes
from remit.core.principal import Human
from remit.core.request import Binding
from remit.core.scope import Scope
from remit.errors import AttenuationError, UnauthenticatedError, UnsupportedGrantError, WrongKeyError
from remit.oauth import request_form
from remit.oauth.clients import OAuthClient
from remit.oauth.token_endpoint import GrantType
from remit.oauth.token_issuer import TokenIssuer
from remit.ports.identity import Humans
from remit.web import wire
from remit.web.routes import AppDeps
from remit.web.wire import Form

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_CREDENTIALS = "client_credentials"


class AssertionGrants:
    """The handlers of two grant types; each is there when somebody is configured to be believed."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        self._humans = deps.identity.humans if deps.identity.id_jag else None
        self._workloads = deps.identity.workloads

    def grant_types(self) -> Mapping[str, GrantType]:
        """Return the grant types for the token endpoint: those that can succeed."""
        found = {}
        if self._humans is not None:
            found[JWT_BEARER] = GrantType(request_form.OPENING | {"assertion"}, self.assertion)
        if self._workloads is not None:
            found[CLIENT_CREDENTIALS] = GrantType(request_form.OPENING, self.client_credentials)
        return found

    async def assertion(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Open a task for the human of an ID-JAG that was made for this very client."""
        if self._humans is None:
            raise UnsupportedGrantError
        client.check_named()
        if not client.id:
            raise UnauthenticatedError("`client_id` is missing: an identity assertion is made for one client")
        audience = request_form.audience(form, self._verifier)
        binding, until = await self._tokens.binding(request, client)
        human = await self._verifier.authenticate(self._asserted(self._humans, form, client, binding))
        limit = None if human.details is None else scopes.parse(human.details)
        granted = {} if limit is None else {"authorization_details": human.details}
        wanted = request_form.opening(form, client, binding, granted)
        _within(wanted.scope, limit)
        grant = await self._broker.open(human, wanted)
        return self._tokens.answer(grant, audience=audience, until=until)

    async def _asserted(self, humans: Humans, form: Form, client: OAuthClient, binding: Binding) -> Human:
        """Return the human of an ID-JAG, for its client alone: one that authenticated, or whose key it is bound to.

        A client that has shown neither is anybody who found the assertion, and read the client's name in it (§9.1).
        """
        human = await humans.id_jag(wire.text(form, "assertion"), client.id)
        if human.jkt not in {None, binding.jkt}:
            raise WrongKeyError("the assertion is bound to another key than the proof's")
        if human.jkt is None and client.workload is None:
            raise UnauthenticatedError(
                "the client has to prove who it is, or the assertion to be bound to its key (`cnf.jkt`)"
            )
        return human

    async def client_credentials(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Open a task for an attested workload that acts for itself."""
        if client.workload is None:
            raise UnauthenticatedError("a client has to prove who it is to act for itself")
        audience = request_form.audience(form, self._verifier)
        binding, until = await self._tokens.binding(request, client)
        grant = await self._broker.open(client.workload, request_form.opening(form, client, binding))
        return self._tokens.answer(grant, audience=audience, until=until)


def _within(details: Scope, limit: Scope | None) -> None:
    wide = () if limit is None else tuple(detail for detail in details if scopes.cover(detail, limit) is None)
    if limit is not None and wide:
        held = scopes.shown(limit, {detail.resource for detail in wide})
        raise AttenuationError("the assertion allows less", offending=scopes.dump(wide), help=f"it allows {held}")
