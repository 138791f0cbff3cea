"""``/oauth``: exchange (RFC 8693) opens, delegates and renews; revocation (RFC 7009), introspection (RFC 7662)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import Response

from remit.api import render, wire
from remit.api.minting import ACCESS_TOKEN, Minter
from remit.api.proven import Verifier
from remit.api.who import Caller, Peer, Web, authority_of, operator, url_of
from remit.broker import Broker, Holder
from remit.core import jose
from remit.core import scope as scopes
from remit.core import token as tokens
from remit.core.proof import Proof
from remit.core.scope import Scope
from remit.core.strict import read_json
from remit.core.task import Posture, Wanted
from remit.core.token import Claims
from remit.errors import (
    InvalidRequestError,
    NotFoundError,
    ProofError,
    RemitError,
    TooLargeError,
    UnauthenticatedError,
)
from remit.ports import NewId

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
PEER = "urn:remit:peer"
GRANT = "urn:remit:grant"

_COMMON = frozenset(
    {"grant_type", "subject_token", "subject_token_type", "requested_token_type", "audience", "resource"}
)
_BOUNDS = frozenset(
    {"authorization_details", "ttl", "depth", "fan_out", "exercise", "label", "req_cnf", "req_cnf_proof"}
)
_OPEN = frozenset({"purpose"})
_HINTED = frozenset({"token", "token_type_hint"})

Form = Mapping[str, str]


class OAuth:
    """The handlers over one broker. Tokens are made and read by ``verifier``'s keys."""

    def __init__(self, broker: Broker, verifier: Verifier, new_id: NewId) -> None:
        """Serve ``broker``; ``new_id`` names tokens."""
        self._broker, self._verifier = broker, verifier
        self._minter = Minter(broker, verifier, new_id)

    # -- token --------------------------------------------------------------------------------------------------

    async def token(self, request: Request) -> Response:
        """Open a task, delegate a grant or renew a token, by the type of the subject token."""
        form = await wire.form(request, _COMMON | _BOUNDS | _OPEN)
        self._common(form)
        match authority_of(request), form.get("subject_token_type"):
            case Peer(), "urn:remit:peer":
                return await self._open(request, form)
            case Peer(), "urn:remit:grant":
                return await self._delegate_here(request, form)
            case Web(), "urn:ietf:params:oauth:token-type:access_token":
                return await self._by_token(request, form)
        raise InvalidRequestError("`subject_token_type` is not one that this listener takes")

    def _common(self, form: Form) -> None:
        if form.get("grant_type") != EXCHANGE:
            raise InvalidRequestError(f"`grant_type` must be `{EXCHANGE}`")
        if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
            raise InvalidRequestError("`requested_token_type` must be that of an access token")
        if any(form.get(name, self._verifier.issuer) != self._verifier.issuer for name in ("audience", "resource")):
            raise NotFoundError("tokens are made for this broker alone")

    async def _open(self, request: Request, form: Form) -> Response:
        caller = operator(await self._caller(request))
        wire.only(form, _COMMON | _BOUNDS | _OPEN)
        if form.get("subject_token") != "self":
            raise InvalidRequestError("`subject_token` must be `self`: the human at this socket")
        child = self._child(form, None)
        wanted = _wanted(form, _scope(form), child, Posture())
        if wanted.ttl is None:
            raise InvalidRequestError("`ttl` is missing")
        grant = await self._broker.open(caller, wire.text(form, "purpose"), wanted)
        return self._minter.answer(grant, None)

    async def _delegate_here(self, request: Request, form: Form) -> Response:
        """Delegate on a unix socket, where the listener stands for the caller."""
        wire.only(form, _COMMON | _BOUNDS)
        caller = await self._caller(request)
        if isinstance(caller, Holder) and "req_cnf" in form:
            raise InvalidRequestError("`req_cnf` is not for a run: its channel takes the place of tokens")
        parent = wire.text(form, "subject_token")
        # under a run, a child without a run of its own is as well kept as its parent
        posture = self._broker.task(caller, self._broker.task_of(parent).id).grant(parent).posture
        child = self._child(form, None)
        wanted = _wanted(form, _scope(form), child, posture if child is None else Posture())
        return self._minter.answer(await self._broker.delegate(caller, parent, wanted), None)

    async def _by_token(self, request: Request, form: Form) -> Response:
        """Delegate or renew, by a token and a proof of its key: nobody can use a token that is not theirs."""
        wire.only(form, _COMMON | _BOUNDS)
        token = wire.text(form, "subject_token")
        claims = self._verifier.claims(token)
        holder = await self._verifier.bearer(
            token, request.headers.getlist("dpop"), "POST", url_of(request), hashed=False
        )
        if not form.keys() & _BOUNDS:
            return self._minter.answer(self._broker.check(holder.grant), claims.par_hash)
        child = self._child(form, token)
        if child is None:
            raise InvalidRequestError("`req_cnf` is missing: the key that the child's token is to be bound to")
        wanted = _wanted(form, _scope(form), child, Posture())
        grant = await self._broker.delegate(holder, holder.grant, wanted)
        return self._minter.answer(grant, jose.digest(token))

    async def _caller(self, request: Request) -> Caller:
        return await authority_of(request).identify(request)

    def _child(self, form: Form, token: str | None) -> Proof | None:
        """Return the proven key that the new token is to be bound to, if one is named."""
        if "req_cnf" not in form and "req_cnf_proof" not in form:
            return None
        cnf = read_json(wire.text(form, "req_cnf"))
        if not isinstance(cnf, dict) or cnf.keys() != {"jwk"}:
            raise InvalidRequestError('`req_cnf` must be {"jwk": …}')
        key = jose.public_key(cnf["jwk"], InvalidRequestError)
        endpoint = f"{self._verifier.issuer}/oauth/token"
        proof = self._verifier.read((wire.text(form, "req_cnf_proof"),), "POST", endpoint, token)
        if proof.jkt != key.thumbprint:
            raise ProofError("`req_cnf_proof` is by another key than `req_cnf`")
        self._verifier.once(proof)
        return proof

    # -- revoke, introspect -------------------------------------------------------------------------------------

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """End the grant of a token and all below it; a token that is not the caller's business changes nothing."""
        form = await wire.form(request, _HINTED)
        claims = self._own(caller, wire.text(form, "token"))
        if claims is None:
            return wire.answer({})
        return wire.answer(render.report(await self._broker.revoke(caller, claims.grant)))

    async def introspect(self, request: Request, caller: Caller) -> Response:
        """Tell the claims of a live token of the caller's own subtree; of all else, that it is not active."""
        form = await wire.form(request, _HINTED)
        claims = self._own(caller, wire.text(form, "token"))
        try:
            if claims is None or claims.expires_at <= self._verifier.now():
                return wire.answer({"active": False})
            self._verifier.living(claims)
        except RemitError:
            return wire.answer({"active": False})
        return wire.answer({"active": True, "token_type": "DPoP", **claims.all})

    def _own(self, caller: Caller, token: str) -> Claims | None:
        """Return the claims of a token of the caller's own subtree, expired or not."""
        try:
            claims = self._verifier.claims(token, expired=True)
            task = self._broker.task(caller, claims.task)
        except (NotFoundError, UnauthenticatedError):
            return None
        root = caller.grant if isinstance(caller, Holder) else task.head.root
        return claims if task.within(claims.grant, root) else None


def _scope(form: Form) -> Scope:
    return scopes.parse(read_json(wire.text(form, "authorization_details")))


def _wanted(form: Form, scope: Scope, child: Proof | None, posture: Posture) -> Wanted:
    """Build what is asked for. The agent's name is the broker's to give."""
    if child is not None and len(scopes.json_text(scopes.dump(scope))) > tokens.MAX_DETAILS:
        raise TooLargeError(f"the details of a token have at most {tokens.MAX_DETAILS} characters")
    return Wanted(
        scope=scope,
        agent="",
        ttl=timedelta(seconds=wire.whole("ttl", form["ttl"])) if "ttl" in form else None,
        depth=wire.whole("depth", form.get("depth", "0")),
        fan_out=wire.whole("fan_out", form.get("fan_out", "0")),
        exercise=_flag("exercise", form.get("exercise", "true")),
        posture=posture,
        jkt=None if child is None else child.jkt,
        label=wire.label(form.get("label", "")),
    )


def _flag(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise InvalidRequestError(f"`{name}` must be `true` or `false`")
    return value == "true"
