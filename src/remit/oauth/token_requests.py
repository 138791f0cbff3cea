"""A request for a token: the grant that its form asks for, the key that it is bound to, its audience; and the answer.

Holders of a key need no refresh token (RFC 6749 §6): their access token renews itself by exchange. Clients of the flows
that go through a browser get one: opaque, rotated at every use, and bound to the key of its grant (RFC 9449 §5), so
that a copy is worth nothing; and a copy that is used by the key's owner too ends the grant.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from starlette.responses import Response

from remit import jose
from remit.core import audience as audiences
from remit.core import request as requests
from remit.core import scope as scopes
from remit.core.audience import Audiences
from remit.core.principal import IdToken
from remit.core.request import UNBOUND, Binding, GrantRequest
from remit.core.scope import Scope
from remit.errors import (
    BearerError,
    GrantEndedError,
    InvalidRequestError,
    NotFoundError,
    TargetError,
    UnsupportedScopeError,
    WrongKeyError,
)
from remit.jose import token as tokens
from remit.jose.proof import Proof
from remit.jose.strict import read_json
from remit.jose.token import TokenSpec
from remit.oauth.clients import TARGETS, OAuthClient
from remit.oauth.scope_names import expanded, held
from remit.ports.broker import Opener, Presented
from remit.ports.tokens import Granted
from remit.web import wire
from remit.web.routes import AppDeps
from remit.web.scope_templates import Templates
from remit.web.verifier import Verifier, attested, ends, thumbprint
from remit.web.wire import Form

FIELDS = requests.LIMITS | {"label"}
SCOPE = frozenset({"scope"})
OPENING = FIELDS | TARGETS | {"purpose"}

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type
BEARER = Binding(bearer="")  # of a client that proves nothing, before it is known at which resource that may do
BYTES = 32  # random ones of a refresh token
TTL = 3600  # seconds: an OAuth client that knows nothing of remit cannot say

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")  # of SHA-256, base64url
# what follows a place, without a segment that some reader takes away, with the one before it or to its end
_BELOW = r"(?:/(?!\.{1,2}(?:/|\Z))(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%(?!2[5EeFf]|5[Cc])[0-9A-Fa-f]{2})*)*"
_PATH = re.compile(_BELOW)
# the gateway's listener, by any of the names that it answers to, and a resource there
_LOOPBACK = re.compile(
    rf"http://(?:127\.0\.0\.1|localhost|\[::1\]):([0-9]{{1,5}})(?:/|/([a-z0-9][a-z0-9._-]{{0,62}}){_BELOW})?"
)
_OTHER_KEY = "`dpop_jkt` must be the thumbprint of the key that the proof is by"


def read(form: Form, binding: Binding = UNBOUND, otherwise: Mapping[str, object] | None = None) -> GrantRequest:
    """Read a grant request from a form, whose fields are text or JSON; ``otherwise`` holds for those it lacks."""
    given: dict[str, object] = {}
    for name in requests.FIELDS & form.keys():
        given[name] = form[name]
        if name == "authorization_details":
            given[name] = read_json(form[name])
        elif name not in requests.TEXTS:
            with suppress(InvalidRequestError):  # the reader says what it must be
                given[name] = read_json(form[name])
    found = requests.read({**(otherwise or {}), **given}, binding)
    if binding.by_token:  # a token follows, which has to name it all
        tokens.check_size(found.scope)
    return found


def of_human(form: Form, binding: Binding) -> GrantRequest:
    """Return the request that a human is to decide on, a token to follow: for an hour, unless the client says."""
    found = read(form, binding, {"ttl": TTL})
    tokens.check_size(found.scope)
    return found


def opening(client: OAuthClient, binding: Binding, otherwise: Mapping[str, object] | None = None) -> GrantRequest:
    """Return the request for a root grant that a client makes: in its own name, if it proved one."""
    client.check_named()
    if client.workload is not None and client.workload.jkt not in {None, binding.jkt}:
        raise WrongKeyError("the client's credential is bound to another key than the grant would be")
    found = read(client.form, attested(binding, client.workload), otherwise)
    return replace(found, binding=borne(found.binding, found.scope))


async def proven(client: OAuthClient, verifier: Verifier) -> Binding:
    """Return what a client's request is to be bound to: its workload, and the key that it names or proves."""
    binding = keyed(client.form)
    if client.proofs:
        proof = verifier.read(client.proofs, "POST", client.url, None)
        await verifier.pending.burn(proof, stranger=True)
        if binding.jkt not in {None, proof.jkt}:
            raise InvalidRequestError(_OTHER_KEY)
        binding = replace(binding, jkt=proof.jkt)  # a human then approves of the key too (RFC 9449 §10.1)
    return attested(binding, client.workload)


def keyed(form: Form) -> Binding:
    """Return a binding to the key that a request names (``dpop_jkt``), if it does."""
    jkt = form.get("dpop_jkt")
    if jkt is not None and not _THUMBPRINT.fullmatch(jkt):
        raise InvalidRequestError(_OTHER_KEY)
    return Binding(jkt=jkt)


def child_key(form: Form, verifier: Verifier, token: str | None = None) -> ProvenKey:
    """Return the key that ``req_cnf`` names and proves for a new grant; UNBOUND if it names none.

    ``token`` is the parent's.
    """
    if "req_cnf" not in form and "req_cnf_proof" not in form:
        return ProvenKey()
    cnf, proof = read_json(wire.text(form, "req_cnf")), wire.text(form, "req_cnf_proof")
    found = verifier.confirmed(cnf, proof, f"{verifier.issuer}/oauth/token", token)
    return ProvenKey(Binding(jkt=found.jkt), proof=found)


class ProvenKey(NamedTuple):
    """What a token is to be bound to: a key with its proof, which is yet to be burnt, or a certificate with its end."""

    binding: Binding = UNBOUND
    until: datetime | None = None
    proof: Proof | None = None


def audience(form: Form, verifier: Verifier) -> str | None:
    """Return whom the token is to be for: None is the broker as a whole; else its gateway, a resource there, a service.

    TargetError for anybody else (RFC 8707 §2), and for two. What clients of a resource add, a slash or a path at it,
    names the same: a token is for all that its grant allows there.
    """
    issuer, gateway = verifier.issuer, verifier.gateway
    found = {known_audience(form[name], verifier.audiences) for name in TARGETS & form.keys()}
    if "" in found or len(found) > 1:
        places = f", `{gateway}`, or a resource there: `{gateway}/NAME`" if gateway else ""
        raise TargetError(help=f"the audience is `{issuer}`{places}, or a service that is configured here")
    return None if found <= {issuer} else found.pop()


def narrowed(form: Form, verifier: Verifier, meant: str | None) -> str | None:
    """Return whom a token is to be for that was ``meant`` for somebody when it was asked for; see ``core.audience``."""
    return audiences.narrowed(meant, audience(form, verifier), verifier.gateway) if form.keys() & TARGETS else meant


def check_audience(whom: str | None, scope: Scope, binding: Binding, verifier: Verifier) -> None:
    """Raise TargetError where no token for this audience could be made, before anything is asked or used up."""
    audiences.settled(whom, scope, binding, verifier.audiences)


def known_audience(named: str, known: Audiences) -> str:
    """Return whom a name of an audience means, as it is written in tokens; empty: nobody who is known."""
    issuer, gateway = known.issuer, known.gateway
    if (service := known.service(named)) is not None:
        return service.uri
    if named.startswith(issuer) and _PATH.fullmatch(named, len(issuer)):
        return issuer
    place = _LOOPBACK.fullmatch(named)
    if place is None or gateway is None or place[1] != gateway.rpartition(":")[2]:
        return ""
    return f"{gateway}/{place[2]}" if place[2] else gateway


def meant(
    form: Form, verifier: Verifier, templates: Templates, client: str, *, opening: bool = True
) -> tuple[str | None, Form]:
    """Return whom a token is to be for, and the request with the details that its ``scope`` or resource stands for."""
    whom = audience(form, verifier)
    gateway, service = f"{verifier.gateway}/", verifier.audiences.service(whom)
    at = whom.removeprefix(gateway) if whom is not None and whom.startswith(gateway) else None
    at = at if service is None else service.resource
    if "scope" in form or (opening and at in templates):
        return whom, expanded(form, templates, client, at, opening=opening)
    return whom, form


def exchanged(form: Form, audience: str | None) -> TokenSpec:
    """Return what the token of a child is to say, whose parent's is in the form."""
    return TokenSpec(audience, jose.digest(form["subject_token"]))


def borne(binding: Binding, scope: Scope) -> Binding:
    """Return a binding as it is, or a bearer's to the one place where a scope is reached; BearerError for several.

    Whether bearers are taken there, who makes the grant knows.
    """
    if binding.bearer is None:
        return binding
    place = audiences.at_one_place(scope)
    if place is None:
        raise BearerError
    return replace(binding, bearer=place)


class TokenIssuer:
    """Makes answers of the token endpoint (RFC 6749 §5.1, RFC 8693 §2.2.1, RFC 9396 §7)."""

    def __init__(self, verifier: Verifier, templates: Templates) -> None:
        self._verifier, self._templates = verifier, templates

    def proven(self, client: OAuthClient) -> ProvenKey:
        """Return what a token is to be bound to: the key of the ``DPoP`` header, else the certificate, with its end.

        A client whose own credential is bound to a key (WIT) has to prove that key, and no other. One that shows
        neither may be a bearer, of what ``borne`` tells where it is known what is asked for.
        """
        chain, workload = client.certificates, client.workload
        if not client.proofs and not chain and (workload is None or workload.jkt is None):
            return ProvenKey(BEARER)
        if not client.proofs and chain:
            if workload is not None and workload.jkt is not None:
                raise WrongKeyError("the client's credential is bound to a key: prove it by `DPoP`")
            return ProvenKey(Binding(x5t=thumbprint(chain[0])), ends(chain[0]))
        proof = self._verifier.read(client.proofs, "POST", client.url, None)
        if workload is not None and workload.jkt not in {None, proof.jkt}:
            raise WrongKeyError("the proof is by another key than the client's credential is bound to")
        return ProvenKey(Binding(jkt=proof.jkt), proof=proof)

    async def binding(self, client: OAuthClient) -> tuple[Binding, datetime | None]:
        """Return the same, where the proof is burnt before a human's decision is used up."""
        binding, until, proof = self.proven(client)
        if proof is not None:
            await self._verifier.pending.burn(proof, stranger=client.workload is None)
        return binding, until

    async def open(
        self,
        opener: Opener | IdToken,
        request: GrantRequest,
        shown: ProvenKey,
        audience: str | None,
        *,
        stranger: bool = False,
    ) -> Response:
        """Open a task for whoever has ``shown`` a key, and return the answer."""
        spec = TokenSpec(audience, until=shown.until)
        made = await self._verifier.tokens.open_with_token(opener, request, spec, shown.proof, stranger=stranger)
        return self.told(made)

    async def answer(
        self, grant_id: str, audience: str | None, until: datetime | None, par_hash: str | None = None, **more: object
    ) -> Response:
        """Return the answer for a grant that is bound, with ``more`` members.

        ``par_hash`` is the digest of the parent's token that it was made for; ``audience`` None is the broker;
        ``until`` is the end of the certificate that it is bound to.
        """
        made = await self._verifier.tokens.mint(grant_id, TokenSpec(audience, par_hash, until))
        return self.told(made, **more)

    def told(self, made: Granted, **more: object) -> Response:
        """Return the answer of the token endpoint: with a token if the grant is bound, and with ``more`` members."""
        content = {"task": made.task, "grant": made.grant, "expires_in": made.expires_in}
        token = {"access_token": made.token, "token_type": made.token_type, "issued_token_type": ACCESS_TOKEN}
        shown = {} if made.token is None else token
        names = held(scopes.read(read_json(made.details)), self._templates) if self._templates else ""
        scope = {"scope": names} if names else {}
        return wire.answer({**content, **shown, **scope, **more}, authorization_details=made.details)


class RefreshTokenGrantType:
    """The handler of the grant type ``refresh_token``, and what hands out the first token of a family."""

    def __init__(self, deps: AppDeps, tokens: TokenIssuer) -> None:
        self._broker, self._verifier, self._tokens = deps.broker, deps.verifier, tokens
        self._templates = deps.identity.scopes

    async def begin(self, grant_id: str, client: OAuthClient, audience: str | None = None) -> str:
        """Return the first refresh token of a grant, for the client that it is given to."""
        token = secrets.token_urlsafe(BYTES)
        digest, keyed = jose.digest(token), client.proven
        await self._broker.issue_refresh_token(grant_id, client.id, digest, audience, keyed=keyed)
        return token

    async def _asked(self, client: OAuthClient, digest: str, *, bound: bool) -> str | None:
        """Return whom the token is to be for, or raise what its family cannot answer: nothing is spent by then.

        UnsupportedScopeError for names of another scope than was granted (RFC 6749 §6): it stays as it is. TargetError
        for more than was asked for at the start. What a token means that counts no more, spending it says.
        """
        whom, form = audience(client.form, self._verifier), client.form
        named = expanded({"scope": form.get("scope", "")}, self._templates, client.id)
        family = await self._broker.refresh_token(digest)
        if family is None or family.turn(digest, "", self._verifier.clock().timestamp(), bound=bound) is None:
            return whom
        whom = narrowed(form, self._verifier, family.audience)
        if not named and not form.keys() & TARGETS:
            return whom
        try:
            grant = (await self._broker.grant(family.grant)).grant
        except (GrantEndedError, NotFoundError):
            return whom
        if named and set(scopes.parse(read_json(named["authorization_details"]))) != set(grant.scope):
            raise UnsupportedScopeError("a refreshed token is for all that was granted", help="leave out `scope`")
        check_audience(whom, grant.scope, grant.binding, self._verifier)
        return whom

    async def refresh(self, client: OAuthClient) -> Response:
        """Spend a refresh token for an access token and the next refresh token."""
        client.check_named()
        digest = jose.digest(wire.text(client.form, "refresh_token"))
        binding, until = await self._tokens.binding(client)
        fresh = secrets.token_urlsafe(BYTES)
        attested, keyed = client.workload is not None, client.proven and client.workload is None
        presented = Presented(digest, client.id, binding.jkt, binding.x5t, attested, keyed)
        whom = await self._asked(client, digest, bound=binding.thumbprint is not None)
        rotated = await self._broker.rotate_refresh_token(presented, jose.digest(fresh))
        return await self._tokens.answer(rotated.grant.id, whom, until, refresh_token=fresh)
