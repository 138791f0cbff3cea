"""Tokens made for grants, and the answer that carries one (RFC 6749 §5.1, RFC 8693 §2.2.1, RFC 9396 §7)."""

from __future__ import annotations

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from remit.core import scope as scopes
from remit.core.lineage import GrantView
from remit.core.request import Binding
from remit.errors import TokenError, WrongKeyError
from remit.jose import token as tokens
from remit.jose.token import TokenParams
from remit.oauth.clients import Client
from remit.ports import NewId
from remit.web import wire
from remit.web.authentication import certificates_of, url_of
from remit.web.verifier import Verifier, ends, thumbprint

ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a type


class Minter:
    """Makes the answers of the token endpoint."""

    def __init__(self, verifier: Verifier, new_id: NewId) -> None:
        """Sign with ``verifier``'s keys; ``new_id`` names tokens."""
        self._verifier, self._new_id = verifier, new_id

    def binding(self, request: Request, client: Client) -> tuple[Binding, datetime | None]:
        """Return what a token is to be bound to: the key of the ``DPoP`` header, else the certificate, with its end.

        A client whose own credential is bound to a key (WIT) has to prove that key, and no other.
        """
        proofs, chain = request.headers.getlist("dpop"), certificates_of(request)
        workload = client.workload
        if not proofs and chain:
            if workload is not None and workload.jkt is not None:
                raise WrongKeyError("the client's credential is bound to a key: prove it by `DPoP`")
            return Binding(x5t=thumbprint(chain[0])), ends(chain[0])
        proof = self._verifier.read(proofs, "POST", url_of(request, self._verifier.issuer), None)
        if workload is not None and workload.jkt not in {None, proof.jkt}:
            raise WrongKeyError("the proof is by another key than the client's credential is bound to")
        self._verifier.once(proof, stranger=workload is None)
        return Binding(jkt=proof.jkt), None

    def answer(
        self,
        view: GrantView,
        par_hash: str | None = None,
        *,
        audience: str | None = None,
        until: datetime | None = None,
        **more: object,
    ) -> Response:
        """Return the answer for a grant: with a token if the grant is bound, and with ``more`` members.

        ``audience`` None is the broker itself. ``until`` is the end of the certificate that the grant is bound to.
        """
        now, grant = self._verifier.clock(), view.grant
        content: dict[str, object] = {
            "task": view.task,
            "grant": grant.id,
            "expires_in": int((grant.expires_at - now).total_seconds()),
        }
        if grant.binding.thumbprint is not None:
            making = TokenParams(self._verifier.issuer, self._new_id("tok"), now, par_hash, audience, until)
            content |= self._made(view, making)
        return wire.answer({**content, **more}, authorization_details=scopes.text(grant.scope))

    def _made(self, view: GrantView, making: TokenParams) -> dict[str, object]:
        grant = view.grant
        if grant.binding.x5t is not None and making.until is None:
            raise TokenError("its grant is bound to a certificate: use the TLS listener with it")
        claims = tokens.claims(view, making)
        signer = self._verifier.keys.signer
        return {
            "access_token": tokens.mint(
                claims, signer.kid, signer.alg, signer.sign, authorization_details=scopes.text(grant.scope)
            ),
            "token_type": "DPoP" if grant.binding.x5t is None else "Bearer",
            "issued_token_type": ACCESS_TOKEN,
            "expires_in": claims["exp"] - claims["iat"],
        }
