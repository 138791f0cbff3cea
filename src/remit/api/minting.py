"""Tokens made for grants, and the answer that carries one (RFC 6749 §5.1, RFC 8693 §2.2.1, RFC 9396 §7)."""

from __future__ import annotations

from starlette.responses import Response

from remit.api import wire
from remit.api.proven import Verifier
from remit.broker import Broker
from remit.core import scope as scopes
from remit.core import token as tokens
from remit.core.task import Grant
from remit.core.token import Making
from remit.ports import NewId

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type


class Minter:
    """Makes the answers of the token endpoint."""

    def __init__(self, broker: Broker, verifier: Verifier, new_id: NewId) -> None:
        """Sign with ``verifier``'s keys; ``new_id`` names tokens."""
        self._broker, self._verifier, self._new_id = broker, verifier, new_id

    def answer(self, grant: Grant, par_hash: str | None, **more: object) -> Response:
        """Return the answer for a grant: with a token if the grant is bound to a key, and with ``more`` members."""
        now = self._verifier.clock()
        content: dict[str, object] = {
            "task": self._broker.task_of(grant.id).id,
            "grant": grant.id,
            "expires_in": int((grant.expires_at - now).total_seconds()),
            "authorization_details": scopes.dump(grant.scope),
            **more,
        }
        return wire.answer(content if grant.jkt is None else {**content, **self._made(grant, par_hash)})

    def _made(self, grant: Grant, par_hash: str | None) -> dict[str, object]:
        signer, now = self._verifier.keys.signer, self._verifier.clock()
        task = self._broker.task_of(grant.id)
        claims = tokens.claims(task, grant, Making(self._verifier.issuer, self._new_id("tok"), now, par_hash))
        return {
            "access_token": tokens.mint(claims, signer.kid, signer.alg, signer.sign),
            "token_type": "DPoP",
            "issued_token_type": ACCESS_TOKEN,
            "expires_in": tokens.life(claims),
        }
