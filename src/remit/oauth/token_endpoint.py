"""The token endpoint (RFC 6749 §3.2), and the grant types in which no human decides.

Token exchange (RFC 8693) opens a task for a human, delegates a grant or renews a token. An identity assertion of a
human (draft-ietf-oauth-identity-assertion-authz-grant, RFC 7523) may limit what is opened with it; a workload that
opens a task (RFC 6749 §4.4) acts for nobody but itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from remit.core import approval as approvals
from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.principal import Claims, Holder, Human, IdToken, Operator, Principal, Right, Workload, check_right
from remit.core.request import UNBOUND, Binding, GrantRequest
from remit.errors import (
    AttenuationError,
    GrantEndedError,
    GrantTokenError,
    InvalidRequestError,
    NotFoundError,
    SplicedError,
    TokenError,
    UnauthenticatedError,
    UnsupportedGrantError,
    UnsupportedScopeError,
    WrongKeyError,
    told_as,
)
from remit.jose.strict import read_json
from remit.jose.token import TokenSpec
from remit.oauth import clients, token_requests
from remit.oauth.clients import TARGETS, Clients, GrantType, OAuthClient
from remit.oauth.scope_names import expanded
from remit.oauth.token_requests import ACCESS_TOKEN, FIELDS, OPENING, SCOPE, TTL, TokenIssuer
from remit.ports.identity import Humans
from remit.ports.tokens import unbound
from remit.web import wire
from remit.web.routes import AppDeps
from remit.web.verifier import attested, ends, verified_actor
from remit.web.wire import Form

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_CREDENTIALS = "client_credentials"
JWT = "urn:ietf:params:oauth:token-type:jwt"

_SUBJECT = frozenset({"subject_token", "subject_token_type", "requested_token_type"})
_CHILD = frozenset({"req_cnf", "req_cnf_proof"})
_ACTOR = frozenset({"actor_token", "actor_token_type", "approval"})
_CLIENT = clients.FIELDS | {"grant_type"}
_OPENING = OPENING | _SUBJECT | _CHILD | _CLIENT
_DELEGATING = FIELDS | TARGETS | _SUBJECT | _CHILD


class TokenEndpoint:
    """The token endpoint, with a handler for each of ``grant_types``."""

    def __init__(self, clients: Clients, grant_types: Mapping[str, GrantType], deps: AppDeps) -> None:
        self._grant_types, self._verifier, self._templates = grant_types, deps.verifier, deps.identity.scopes
        self.authenticate = clients.of(_CLIENT.union(*(one.fields for one in grant_types.values())), self._meant)

    def _meant(self, form: Form) -> frozenset[str]:
        if "grant_type" not in form:
            raise InvalidRequestError("`grant_type` is missing")
        if (grant_type := self._grant_types.get(form["grant_type"])) is None:
            raise UnsupportedGrantError
        return _CLIENT | grant_type.fields

    async def token(self, _: Request, client: OAuthClient) -> Response:
        grant_type, form = self._grant_types[client.form["grant_type"]], client.form
        if "authorization_details" in grant_type.fields:
            opening = form.get("subject_token_type") not in {ACCESS_TOKEN, "urn:remit:grant"}
            meant = token_requests.meant(form, self._verifier, self._templates, client.id, opening=opening)
            client = replace(client, form=meant[1])
        return await grant_type.handler(client)


class Exchange:
    """The handlers of the grant types that take no human who decides; each is there when it can succeed."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        self._humans, self._workloads = deps.identity.humans, deps.identity.workloads
        self._asserted = deps.identity.humans if deps.identity.id_jag else None
        self._templates = deps.identity.scopes

    def grant_types(self) -> Mapping[str, GrantType]:
        found = {EXCHANGE: GrantType(OPENING | SCOPE | _DELEGATING | _ACTOR, self.exchange)}
        if self._asserted is not None:
            found[JWT_BEARER] = GrantType(OPENING | SCOPE | {"assertion"}, self.assertion)
        if self._workloads is not None:
            found[CLIENT_CREDENTIALS] = GrantType(OPENING | SCOPE, self.client_credentials)
        return found

    async def exchange(self, client: OAuthClient) -> Response:
        """Exchange a token. One that is no good, whatever is wrong with it, makes a bad request (RFC 8693 §2.2.2)."""
        try:
            return await self._exchanged(client)
        except (GrantTokenError, GrantEndedError, SplicedError) as error:
            error.told_as = "invalid_request"
            raise

    async def _exchanged(self, client: OAuthClient) -> Response:
        """Open a task, delegate a grant or renew a token, by the type of the subject token."""
        match await self._subject(client), client.form.get("subject_token_type"):
            case Operator() as operator, "urn:remit:peer":
                return await self._open(operator, client)
            case Holder(claims=None) as holder, "urn:remit:peer":
                check_right(holder, Right.OPERATE)
            case (Operator() | Holder(claims=None)) as caller, "urn:remit:grant":
                return await self._delegate_here(caller, client)
            case _, "urn:ietf:params:oauth:token-type:id_token" if self._humans is not None:
                return await self._open_for_human(client)
            case Holder(claims=Claims() as claims) as holder, "urn:ietf:params:oauth:token-type:access_token":
                return await self._by_token(client, holder, claims)
        raise InvalidRequestError("`subject_token_type` is not one that this listener takes")

    async def _subject(self, client: OAuthClient) -> Principal | None:
        """Return the holder of the token that is exchanged: nobody can use a token that is not theirs.

        Elsewhere the client is the listener's principal, or acts for the subject of an ID token.
        """
        form = client.form
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:  # RFC 8693 §2.1
            raise InvalidRequestError("`requested_token_type` must be that of an access token")
        if form.get("subject_token_type") != ACCESS_TOKEN or client.local:
            return client.principal
        if "purpose" in form:  # of all that the grant type takes, the one that means nothing for a child
            raise InvalidRequestError("`purpose` is not a parameter here")
        if "subject_token" not in form:
            raise InvalidRequestError("`subject_token` is missing")
        token, chain = form["subject_token"], client.certificates
        holder = await self._verifier.prove(token, client.proofs, "POST", client.url, chain, ath=False)
        try:
            _same_party(client, self._verifier.signed(token).agent)
        except (SplicedError, UnauthenticatedError) as error:
            await self._verifier.refused(token, error)
            raise
        return holder

    async def _open(self, operator: Operator, client: OAuthClient) -> Response:
        form = client.form
        wire.only(form, _OPENING)
        if form.get("subject_token") != "self":
            raise InvalidRequestError("`subject_token` must be `self`: the human at this socket")
        shown = token_requests.child_key(form, self._verifier)
        wanted = token_requests.opening(client, shown.binding)
        return await self._tokens.open(operator, wanted, shown, token_requests.audience(form, self._verifier))

    async def _open_for_human(self, client: OAuthClient) -> Response:
        """Open a task for the human of an ID token. On a unix socket the operator brings it, key or no key."""
        form, here = client.form, isinstance(client.principal, Operator | Holder)
        wire.only(form, _OPENING)
        if client.principal is not None and here:
            check_right(client.principal, Right.OPERATE)
        audience, stranger = token_requests.audience(form, self._verifier), not here
        shown = token_requests.child_key(form, self._verifier)
        if shown.binding is UNBOUND and not (here and client.workload is None and not client.proofs):
            shown, stranger = self._tokens.proven(client), client.workload is None
        wanted = token_requests.opening(client, shown.binding)
        human = IdToken(wire.text(form, "subject_token"), client.id if client.proven else None)
        return await self._tokens.open(human, wanted, shown, audience, stranger=stranger)

    async def _delegate_here(self, caller: Operator | Holder, client: OAuthClient) -> Response:
        form = client.form
        wire.only(form, _DELEGATING | _CLIENT | {"approval"})
        client.check_named()
        if isinstance(caller, Holder) and "req_cnf" in form:
            raise InvalidRequestError("`req_cnf` is not for a run: its channel takes the place of tokens")
        parent, audience = wire.text(form, "subject_token"), token_requests.audience(form, self._verifier)
        if isinstance(caller, Holder) and caller.grant == parent:
            await self._broker.grant(parent)  # it is told how its own grant ended, also when the task is over
        bound, _, proof = token_requests.child_key(form, self._verifier)
        wanted, approval = await self._requested(client, bound)
        if bound is UNBOUND:
            child = await self._broker.delegate(caller, parent, wanted, approval)
            return self._tokens.told(unbound(child, self._verifier.clock()))
        mint = self._verifier.tokens.delegate_with_token
        return self._tokens.told(await mint(caller, parent, wanted, TokenSpec(audience), proof, approval))

    async def _by_token(self, client: OAuthClient, holder: Holder, claims: Claims) -> Response:
        form = client.form
        audience = token_requests.audience(form, self._verifier)
        if not form.keys() & (FIELDS | _CHILD | _ACTOR):
            until = ends(client.certificates[0]) if client.certificates else None
            return await self._tokens.answer(holder.grant, audience, until, claims.par_hash)
        try:
            bound, _, proof = token_requests.child_key(form, self._verifier, form["subject_token"])
            if bound is UNBOUND:
                raise InvalidRequestError("`req_cnf` is missing: the key that the child's token is to be bound to")
            actor = await self._actor(client, bound)
            wanted, approval = await self._requested(client, attested(bound, actor))
            spec, mint = token_requests.exchanged(form, audience), self._verifier.tokens.delegate_with_token
            return self._tokens.told(await mint(holder, holder.grant, wanted, spec, proof, approval, actor))
        except (SplicedError, UnauthenticatedError) as error:
            await self._verifier.refused(form["subject_token"], error)
            raise

    async def _actor(self, client: OAuthClient, bound: Binding) -> Workload | None:
        token, kind = client.form.get("actor_token"), client.form.get("actor_token_type")
        if (token is None) != (kind is None):
            raise InvalidRequestError("`actor_token` and `actor_token_type` go together")
        if token is None:
            return None
        if kind == ACCESS_TOKEN:
            raise SplicedError("a token of this broker belongs to a grant that exists; the child is yet to be made")
        if kind != JWT or self._workloads is None:
            raise InvalidRequestError("`actor_token_type` is not one that is taken here")
        return await verified_actor(self._workloads, token, bound.jkt)

    async def _requested(self, client: OAuthClient, binding: Binding) -> tuple[GrantRequest, Approval | None]:
        """Return the request of a form. An approved one need not be sent again, and is refused if it is another."""
        if "approval" not in client.form:
            return token_requests.read(client.form, binding), None
        try:
            approval = (await self._broker.look(client.form["approval"])).approval
        except NotFoundError:
            raise GrantTokenError("there is no such approval") from None
        return token_requests.read(client.form, binding, approvals.shown(approval.request)), approval

    async def assertion(self, client: OAuthClient) -> Response:
        """Open a task for the human of an ID-JAG that was made for this very client.

        A client that has neither authenticated nor shown the key that the assertion is bound to is anybody who found
        it, and read the client's name in it (§9.1).
        """
        if self._asserted is None:
            raise UnsupportedGrantError
        client.check_named()
        if not client.id:
            raise UnauthenticatedError("`client_id` is missing: an identity assertion is made for one client")
        audience = token_requests.audience(client.form, self._verifier)
        shown = self._tokens.proven(client)
        with told_as("invalid_grant", TokenError):  # RFC 7523 §3.1
            human = await self._verifier.authenticate(_asserted(self._asserted, client, shown.binding))
        granted = self._granted(human, client.id)
        limit = scopes.parse(granted["authorization_details"]) if granted else None
        wanted = token_requests.opening(client, shown.binding, granted)
        wide = () if limit is None else tuple(each for each in wanted.scope if scopes.cover(each, limit) is None)
        if limit is not None and wide:
            held, offending = scopes.shown(limit, {detail.resource for detail in wide}), scopes.dump(wide)
            raise AttenuationError("the assertion allows less", offending=offending, help=f"it allows {held}")
        return await self._tokens.open(human, wanted, shown, audience, stranger=client.workload is None)

    def _granted(self, human: Human, client: str) -> Mapping[str, object]:
        """Return what an ID-JAG is limited to, which is what it asks for, too; empty where it names no limit.

        Names in its ``scope`` (§4.4) mean what the operator wrote. One that means nothing here limits it to nothing.
        """
        if human.scope is None:
            return {} if human.details is None else {"authorization_details": human.details}
        with told_as("invalid_grant", UnsupportedScopeError):
            told = expanded({"scope": human.scope}, self._templates, client)
            if "authorization_details" not in told:
                raise UnsupportedScopeError("the assertion's `scope` names nothing")
        details = read_json(told["authorization_details"])
        return {"authorization_details": details, "purpose": told["purpose"], "ttl": int(told.get("ttl", TTL))}

    async def client_credentials(self, client: OAuthClient) -> Response:
        """Open a task for an attested workload that acts for itself."""
        if client.workload is None:
            raise UnauthenticatedError("a client has to prove who it is to act for itself")
        audience = token_requests.audience(client.form, self._verifier)
        shown = self._tokens.proven(client)
        return await self._tokens.open(client.workload, token_requests.opening(client, shown.binding), shown, audience)


async def _asserted(humans: Humans, client: OAuthClient, binding: Binding) -> Human:
    human = await humans.id_jag(wire.text(client.form, "assertion"), client.id)
    if human.jkt not in {None, binding.jkt}:
        raise WrongKeyError("the assertion is bound to another key than the proof's")
    if human.jkt is None and client.workload is None:
        told = "the client has to prove who it is, or the assertion to be bound to its key (`cnf.jkt`)"
        raise UnauthenticatedError(told)
    return human


def _same_party(client: OAuthClient, given_to: str) -> None:
    """Raise SplicedError unless whoever authenticated is whom the subject token was given to (RFC 8693 §4.4).

    A public client's name proves nothing and is let pass, unless it is the SPIFFE ID of somebody else.
    """
    if client.workload is not None and client.id != given_to:
        raise SplicedError("the subject token was given to another agent than the one that presents it")
    if client.id and client.id != given_to:
        client.check_named()
