"""Token exchange (RFC 8693): opens a task for a human, delegates a grant, renews a token."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from remit.core import approval as approvals
from remit.core.approval import Approval
from remit.core.principal import Claims, Holder, Operator, Principal, Right, Workload, check_right
from remit.core.request import UNBOUND, Binding, GrantRequest
from remit.core.task import Posture
from remit.errors import (
    GrantTokenError,
    InvalidRequestError,
    NonceRequiredError,
    NotFoundError,
    SplicedError,
    UnauthenticatedError,
)
from remit.oauth import request_form
from remit.oauth.clients import OAuthClient
from remit.oauth.token_endpoint import GrantType
from remit.oauth.token_issuer import ACCESS_TOKEN, TokenIssuer
from remit.web import wire
from remit.web.authentication import SocketAuth, certificates_of, listener_of, url_of
from remit.web.routes import AppDeps
from remit.web.verifier import attested, ends, verified_actor
from remit.web.wire import Form

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"

_SUBJECT = frozenset({"subject_token", "subject_token_type", "requested_token_type"})
_CHILD = frozenset({"req_cnf", "req_cnf_proof"})
_ACTOR = frozenset({"actor_token", "actor_token_type", "approval"})
_OPENING = request_form.OPENING | _SUBJECT
_DELEGATING = request_form.FIELDS | request_form.TARGETS | _SUBJECT | _CHILD | _ACTOR
_CLIENT = frozenset({"grant_type", "client_id", "client_assertion", "client_assertion_type"})


class Exchange:
    """The handlers of one grant type, by the type of the subject token."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        self._humans, self._workloads = deps.identity.humans, deps.identity.workloads

    def grant_types(self) -> Mapping[str, GrantType]:
        """Return the grant type for the token endpoint."""
        return {EXCHANGE: GrantType(_OPENING | _DELEGATING, self.exchange, self.subject)}

    async def subject(self, request: Request, client: OAuthClient) -> Principal | None:
        """Return the holder of the token that is exchanged: nobody can use a token that is not theirs.

        Elsewhere the client is the listener's principal, or acts for the subject of an ID token.
        """
        form = client.form
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:  # RFC 8693 §2.1
            raise InvalidRequestError("`requested_token_type` must be that of an access token")
        if form.get("subject_token_type") != ACCESS_TOKEN or isinstance(listener_of(request), SocketAuth):
            return client.principal
        if "purpose" in form:  # of all that the grant type takes, the one that means nothing for a child
            raise InvalidRequestError("`purpose` is not a parameter here")
        if "subject_token" not in form:
            raise InvalidRequestError("`subject_token` is missing")
        claims, proofs = self._verifier.signed(form["subject_token"]), request.headers.getlist("dpop")
        url, certificates = url_of(request, self._verifier.issuer), certificates_of(request)
        holder = await self._verifier.prove(claims, proofs, "POST", url, None, certificates)
        try:
            _same_party(client, claims)
        except (SplicedError, UnauthenticatedError) as error:
            await self._verifier.refused(claims, error)
            raise
        return holder

    async def exchange(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Open a task, delegate a grant or renew a token, by the type of the subject token."""
        match client.principal, form.get("subject_token_type"):
            case Operator() as operator, "urn:remit:peer":
                return await self._open(operator, form, client)
            case Holder(claims=None) as holder, "urn:remit:peer":
                check_right(holder, Right.OPERATE)
            case (Operator() | Holder(claims=None)) as caller, "urn:remit:grant":
                return await self._delegate_here(caller, form, client)
            case _, "urn:ietf:params:oauth:token-type:id_token" if self._humans is not None:
                return await self._open_for_human(request, form, client)
            case Holder(claims=Claims() as claims) as holder, "urn:ietf:params:oauth:token-type:access_token":
                return await self._by_token(request, form, holder, claims)
        raise InvalidRequestError("`subject_token_type` is not one that this listener takes")

    async def _open(self, operator: Operator, form: Form, client: OAuthClient) -> Response:
        wire.only(form, _OPENING | _CHILD | _CLIENT)
        if form.get("subject_token") != "self":
            raise InvalidRequestError("`subject_token` must be `self`: the human at this socket")
        wanted = request_form.opening(form, client, await request_form.child_key(form, self._verifier) or UNBOUND)
        audience = request_form.audience(form, self._verifier)
        return self._tokens.answer(await self._broker.open(operator, wanted), audience=audience)

    async def _open_for_human(self, request: Request, form: Form, client: OAuthClient) -> Response:
        """Open a task for the human of an ID token. On a unix socket the operator brings it, key or no key."""
        wire.only(form, _OPENING | _CHILD | _CLIENT)
        here = isinstance(client.principal, Operator | Holder)
        if client.principal is not None and here:
            check_right(client.principal, Right.OPERATE)
        if self._humans is None:
            raise InvalidRequestError("no issuer of ID tokens is configured")
        audience, until = request_form.audience(form, self._verifier), None
        bound = await request_form.child_key(form, self._verifier, stranger=not here)
        if bound is None and not (here and client.workload is None and "dpop" not in request.headers):
            bound, until = await self._tokens.binding(request, client)
        wanted = request_form.opening(form, client, bound or UNBOUND)
        human = await self._verifier.authenticate(self._humans.id_token(wire.text(form, "subject_token")))
        grant = await self._broker.open(human, wanted)
        return self._tokens.answer(grant, audience=audience, until=until)

    async def _delegate_here(self, caller: Operator | Holder, form: Form, client: OAuthClient) -> Response:
        wire.only(form, request_form.FIELDS | request_form.TARGETS | _SUBJECT | _CHILD | _CLIENT | {"approval"})
        client.check_named()
        if isinstance(caller, Holder) and "req_cnf" in form:
            raise InvalidRequestError("`req_cnf` is not for a run: its channel takes the place of tokens")
        parent, audience = wire.text(form, "subject_token"), request_form.audience(form, self._verifier)
        if isinstance(caller, Holder) and caller.grant == parent:
            await self._broker.grant(parent)  # it is told how its own grant ended, also when the task is over
        # under a run, a child without a run of its own is as well kept as its parent
        posture = (await self._broker.find(parent, caller)).grant.posture
        bound = await request_form.child_key(form, self._verifier)
        wanted, approval = await self._requested(form, bound or UNBOUND)
        posture = posture if bound is None else Posture()
        grant = await self._broker.delegate(caller, parent, wanted, approval, posture=posture)
        return self._tokens.answer(grant, audience=audience)

    async def _by_token(self, request: Request, form: Form, holder: Holder, claims: Claims) -> Response:
        audience = request_form.audience(form, self._verifier)
        if not form.keys() & (request_form.FIELDS | _CHILD | _ACTOR):
            certificates = certificates_of(request)
            grant, until = await self._broker.grant(holder.grant), ends(certificates[0]) if certificates else None
            return self._tokens.answer(grant, par_hash=claims.par_hash, audience=audience, until=until)
        try:
            return await self._delegate(holder, form, audience)
        except (SplicedError, UnauthenticatedError) as error:
            if not isinstance(error, NonceRequiredError):
                await self._verifier.refused(claims, error)
            raise

    async def _delegate(self, holder: Holder, form: Form, audience: str | None) -> Response:
        bound = await request_form.child_key(form, self._verifier, form["subject_token"])
        if bound is None:
            raise InvalidRequestError("`req_cnf` is missing: the key that the child's token is to be bound to")
        actor = await self._actor(form, bound)
        wanted, approval = await self._requested(form, attested(bound, actor))
        grant = await self._broker.delegate(holder, holder.grant, wanted, approval, actor)
        return self._tokens.answer(grant, parent_token=form["subject_token"], audience=audience)

    async def _actor(self, form: Form, bound: Binding) -> Workload | None:
        token, kind = form.get("actor_token"), form.get("actor_token_type")
        if (token is None) != (kind is None):
            raise InvalidRequestError("`actor_token` and `actor_token_type` go together")
        if token is None:
            return None
        if kind == ACCESS_TOKEN:
            raise SplicedError("a token of this broker belongs to a grant that exists; the child is yet to be made")
        if kind != JWT or self._workloads is None:
            raise InvalidRequestError("`actor_token_type` is not one that is taken here")
        return await verified_actor(self._workloads, token, bound.jkt)

    async def _requested(self, form: Form, binding: Binding) -> tuple[GrantRequest, Approval | None]:
        """Return the request of a form. An approved one need not be sent again, and is refused if it is another."""
        try:
            approval = (await self._broker.look(form["approval"])).approval if "approval" in form else None
        except NotFoundError:
            raise GrantTokenError("there is no such approval") from None
        return request_form.read(
            form, binding, None if approval is None else approvals.shown(approval.request)
        ), approval


def _same_party(client: OAuthClient, claims: Claims) -> None:
    """Raise SplicedError unless whoever authenticated is whom the subject token was given to (RFC 8693 §4.4).

    A public client's name proves nothing and is let pass, unless it is the SPIFFE ID of somebody else.
    """
    if client.id == claims.client:
        return
    if client.workload is not None:
        raise SplicedError("the subject token was given to another agent than the one that presents it")
    client.check_named()
