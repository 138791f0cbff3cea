"""The tokens of grants (``ports.tokens``): minted here, for a live grant alone, and known again when they come back.

Of what was minted lately only the digest is kept, with the grant that it stands for. For any other token the signature
says whose it is, as after a restart; what it claims is believed as far as the grant bears it out. A bearer's proves no
key of its own, so that no signature alone is believed: its name says that it was made by this very process.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from remit import jose
from remit.broker.broker import Broker
from remit.core import scope as scopes
from remit.core.audience import Audiences, concerning, settled
from remit.core.principal import Claims, GrantView, Holder
from remit.core.request import Binding
from remit.core.scope import Scope
from remit.errors import ExpiredError, NotFoundError, RemitError, TargetError, TokenError, WrongKeyError
from remit.jose import status
from remit.jose import token as tokens
from remit.jose.keys import by_kid
from remit.jose.proof import Nonces, Proof
from remit.jose.token import STATUS, TokenSpec
from remit.ports import Clock, NewId, SigningKeys
from remit.ports.identity import Humans
from remit.ports.pending import Pending
from remit.ports.tokens import PROVE, Granted, TokenPort

MARK = 22  # characters at the end of a name
MAX_KNOWN = 20_000  # tokens known by their digest: some 5 MB


class _Known(NamedTuple):
    """What a token stands for, until its end (seconds since the epoch)."""

    grant: str
    jti: str
    end: int
    audience: str


class GrantTokens(TokenPort):
    """Mints, and knows again. What each method does stands in ``ports/tokens.py``."""

    def __init__(
        self,
        broker: Broker,
        keys: SigningKeys,
        pending: Pending,
        issuer: str,
        clock: Clock,
        new_id: NewId,
        nonce_key: bytes,
        *,
        known: Audiences | None = None,
        by_rsa: SigningKeys | None = None,
        client_key: bytes = b"",
        humans: Humans | None = None,
    ) -> None:
        """Sign by ``keys`` as ``issuer``, for all whom it has ``known``, itself alone if None; ``new_id`` names tokens.

        ``by_rsa`` signs for those of them that want it; by ``client_key`` clients are known that registered themselves.
        Proofs are burnt in ``pending``; ``humans`` verifies the ID tokens that open tasks.
        """
        self._broker, self._keys, self._pending, self._issuer = broker, keys, pending, issuer
        self._clock, self._new_id, self._nonces = clock, new_id, Nonces(nonce_key)
        self._humans, self._audiences, self._by_rsa = humans, known or Audiences(issuer), by_rsa
        self._key = secrets.token_bytes(32)  # of this process: bearers' tokens are named by it
        self._client_key = client_key or secrets.token_bytes(32)
        self._list, self._made_for = "", (0, "", 0)  # the newest status list; second, key and ends that it is of
        self._take()

    def keys_changed(self) -> None:
        """Take over after a rotation, and tell workers: what only an unpublished key signed is worth nothing now."""
        self._take()
        self._broker.feeds.publish(token_keys=self.public_jwks())

    def public_jwks(self) -> Sequence[Mapping[str, str]]:
        """Return the keys that verify tokens, of both rings if there are two, the signing one of each first."""
        return [*self._keys.public_jwks(), *(() if self._by_rsa is None else self._by_rsa.public_jwks())]

    def _take(self) -> None:
        self._public = by_kid(self.public_jwks())
        self._known: dict[bytes, _Known] = {}  # by digest

    async def burn(self, proof: Proof | None, *, stranger: bool = False) -> None:
        if proof is not None:
            await self._pending.burn(proof, stranger=stranger)

    async def mint(self, grant_id: str, spec: TokenSpec) -> Granted:
        view = await self._broker.grant(grant_id)
        binding, scope = view.grant.binding, view.grant.scope
        self._broker.check_bearer(binding, scope)
        spec = replace(spec, audience=self._audience(spec.audience, scope, binding))
        if not binding.by_token:
            raise TokenError("its grant is not bound to a key")
        if binding.x5t is not None and spec.until is None:
            raise TokenError("its grant is bound to a certificate: use the TLS listener with it")
        claims = tokens.claims(view, spec, self._issuer, self._new_id("tok"), self._clock())
        if binding.bearer is not None:
            claims["jti"] = self._marked(claims["jti"], grant_id, claims["exp"])
        details = scopes.text(concerning(scope, spec.audience, self._audiences))
        signer = self._keys.signer
        if spec.audience in self._audiences.by_rsa:
            if self._by_rsa is None:
                raise TargetError("there is no key that signs for this audience")
            signer = self._by_rsa.signer
        text = tokens.mint(claims, signer.kid, signer.alg, signer.sign, authorization_details=details)
        known = _Known(grant_id, claims["jti"], claims["exp"], claims["aud"])
        self._remember(sha256(text.encode()).digest(), known)
        kind = "DPoP" if binding.jkt is not None else "Bearer"
        return Granted(view.task, grant_id, claims["exp"] - claims["iat"], details, text, kind)

    def _audience(self, audience: str | None, scope: Scope, binding: Binding) -> str | None:
        whom = settled(audience, scope, binding, self._audiences)
        self._broker.check_elsewhere(self._audiences.service(whom))
        return whom

    def _marked(self, name: str, grant: str, end: int) -> str:
        """Return the name of a bearer's token, which nobody can make who has but the key that signs."""
        mark = hmac.digest(self._key, f"{name}\n{grant}\n{end}".encode(), "sha256")
        return name + jose.encode(mark)[:MARK]

    async def present(self, token: str, proof: Proof | None = None) -> Holder:
        view, audience = await self._of(token, self._broker.grant)
        self._broker.check_elsewhere(self._audiences.service(audience))
        if proof is not None and proof.jkt != view.grant.binding.jkt:
            raise WrongKeyError
        self._broker.check_bearer(view.grant.binding, view.grant.scope)
        await self.burn(proof)
        return view.holder

    async def token_grant(self, token: str) -> GrantView:
        return (await self._of(token, self._broker.find))[0]

    async def _of(self, token: str, look: Callable[[str], Awaitable[GrantView]]) -> tuple[GrantView, str]:
        """Return the grant of a token that is not over, as ``look`` has it, and whom the token is for."""
        digest, now = sha256(token.encode()).digest(), self._clock()
        known, claims = self._known.get(digest), None
        if known is None or now.timestamp() >= known.end:
            claims = self._read(token)
            known = _known(claims)
        try:
            view = await look(known.grant)
        except NotFoundError:
            raise TokenError("its grant is not known here") from None
        if claims is not None:
            bound, named = view.grant.binding, (claims.jti[:-MARK], claims.grant, claims.expires_at)
            if (bound.jkt, bound.x5t, view.task) != (claims.jkt, claims.x5t, claims.task):
                raise TokenError("its grant is not bound to this key")
            if claims.bearer and not hmac.compare_digest(claims.jti, self._marked(*named)):
                raise TokenError("it was not made since this broker started", help="get another by the refresh token")
            self._remember(digest, known)
        return view, known.audience

    def _read(self, token: str, *, expired: bool = False) -> Claims:
        whom = self._audiences.by_rsa
        return tokens.read(token, self._public, self._issuer, self._clock(), expired=expired, by_rsa=whom)

    async def refuse_token(self, token: str, error: RemitError) -> None:
        """What is over is recorded as that, whatever else is wrong."""
        known, now = self._known.get(sha256(token.encode()).digest()), self._clock()
        if known is None:
            known = _known(self._read(token, expired=True))
        over = type(error) is TokenError and now.timestamp() >= known.end
        await self._broker.deny(known.grant, PROVE, ExpiredError() if over else error, known.jti)

    async def token_keys(self) -> Sequence[Mapping[str, str]]:
        return self.public_jwks()

    async def nonces(self) -> Nonces:
        return self._nonces

    def turn_nonces(self, fresh: bytes) -> Nonces:
        """Have nonces made with a fresh key from now on, and tell workers."""
        self._nonces = self._nonces.turned(fresh)
        self._broker.feeds.publish(nonces=self._nonces)
        return self._nonces

    async def client_mac(self, statement: str) -> str:
        return jose.encode(hmac.digest(self._client_key, statement.encode(), "sha256"))

    async def status_list(self) -> str:
        """A list is made at most once a second, and anew when a grant ends."""
        now = int(self._clock().timestamp())
        made_for = (now, self._keys.signer.kid, self._broker.feeds.ends)
        if made_for != self._made_for:
            packed = status.live(self._broker.places(), status.PLACES)
            listed, signer = status.claims(self._issuer + STATUS, packed, now), self._keys.signer
            self._list = tokens.mint(listed, signer.kid, signer.alg, signer.sign, typ=status.TYPE)
            self._made_for = made_for
        return self._list

    def _remember(self, digest: bytes, known: _Known) -> None:
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[digest] = known


def _known(claims: Claims) -> _Known:
    return _Known(claims.grant, claims.jti, claims.expires_at, claims.audience)
